//! A cell whose device is passed through by the kernel of an outer guest.
//!
//! The outer guest has a virtual IOMMU without caching mode, and an emulated disk behind it. In it
//! runs this very program, hands the disk over to VFIO as it would a real device, and boots the
//! inner guest: the one that the cell is about. So the path for real hardware is run without any.

use crate::axes::{Accelerator, Axes, Axis, Passthrough};

/// The kernel of outer guests where none is named: it has to have VFIO.
pub const OUTER_KERNEL: &str = "debian-6.12";

/// Where the disk stands in the outer guest: the plan puts it there.
pub const OUTER_DEVICE: &str = "0000:00:01.0";

/// Memory that the outer guest has beside the inner one's, in MiB: for the files it is given, and
/// for a QEMU.
const OUTER_MIB: u32 = 1536;

/// How much longer everything takes in a guest whose CPU is emulated by an emulated CPU: a boot of
/// seconds takes minutes.
const EMULATED_TWICE: f64 = 20.0;

/// The same where the outer guest runs under KVM, and the inner one under whatever is found there.
const IN_A_VIRTUAL_MACHINE: f64 = 4.0;

/// Settings of the outer guest of a cell.
#[must_use]
pub fn outer(axes: &Axes, kernel: &str) -> Axes {
    // Without caching mode, with batching, and with an emulated NVMe controller.
    Axes {
        // The inner one's addresses have to fit.
        aw_bits: axes.aw_bits,
        // One for QEMU's own threads beside the inner guest's.
        smp: axes.smp + 1,
        memory_mib: axes.memory_mib + OUTER_MIB,
        kernel: kernel.to_owned(),
        qemu: axes.qemu.clone(),
        accelerator: axes.accelerator,
        ..Axes::default()
    }
}

/// Settings of the inner guest, as the outer one's dmarig is asked for them.
#[must_use]
pub fn inner(axes: &Axes) -> Axes {
    Axes { passthrough: Passthrough::Host, ..axes.clone() }
}

/// The words of the command line by which `dmarig run` gets exactly the inner guest, whatever the
/// case asks for. Kernel, QEMU and accelerator have options of their own.
#[must_use]
pub fn words(axes: &Axes) -> Vec<String> {
    let own = [Axis::Kernel, Axis::Qemu, Axis::Accelerator];
    let inner = inner(axes);
    let set = Axis::ALL
        .into_iter()
        .filter(|axis| !own.contains(axis) && (*axis != Axis::AwBits || inner.aw_bits.is_some()));
    let value = |axis: Axis| match axis {
        Axis::Memory => format!("{}MiB", inner.memory_mib),
        _ => axis.value(&inner),
    };
    set.flat_map(|axis| ["--set".to_owned(), format!("{axis}={}", value(axis))]).collect()
}

/// How much longer than usual the inner guest may take, by the outer one's accelerator.
#[must_use]
pub const fn patience(outer: Accelerator) -> f64 {
    match outer {
        Accelerator::Kvm => IN_A_VIRTUAL_MACHINE,
        Accelerator::Auto | Accelerator::Tcg => EMULATED_TWICE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        axes::Toggle,
        case::Case,
        conditions::AxisSets,
        matrix::{cells, parse_override},
    };

    #[test]
    fn the_words_give_exactly_the_inner_guest() {
        let text = "case: n\naxes: {passthrough: nested, policy: [lazy, strict], smp: [1, 2]}\n\
                    exclude: [{when: {smp: 2, policy: strict}, reason: x}]\nworkload: {block: {}}\n";
        let case = Case::parse("n.yaml", text).unwrap();
        let mut kernels = AxisSets::default();
        for text in ["kernel=debian-5.10", "qemu=qemu"] {
            parse_override(text, &mut kernels).unwrap();
        }
        for cell in cells(&case, &kernels).unwrap() {
            let mut given = kernels.clone();
            for text in words(&cell.axes).iter().filter(|word| *word != "--set") {
                parse_override(text, &mut given).unwrap();
            }
            let found = cells(&case, &given).unwrap();
            assert_eq!(found.len(), 1, "{}", cell.id);
            assert_eq!(found[0].axes, inner(&cell.axes));
        }
    }

    #[test]
    fn the_outer_guest_has_no_caching_mode_and_room_for_the_inner() {
        let axes = Axes { caching_mode: Toggle::On, memory_mib: 512, smp: 1, ..Axes::default() };
        let outer = outer(&axes, OUTER_KERNEL);
        assert_eq!((outer.caching_mode, outer.passthrough), (Toggle::Off, Passthrough::None));
        assert!(outer.memory_mib >= 512 + 1024 && outer.smp == 2);
    }
}
