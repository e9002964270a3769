//! Page tables as the guest's kernel prints them, with `CONFIG_INTEL_IOMMU_DEBUGFS`.

use dmarig_viommu::tables::{BadPrint, Leaf, PAGE_BYTES, PrintedTables};

use crate::tables::leaf;

/// One file for all devices, or from Linux 6.6 on one for each.
pub(crate) const FILES: PrintedTables =
    PrintedTables { directory: "/sys/kernel/debug/iommu/intel", file: "domain_translation_struct" };

pub(crate) fn parse(text: &str, device: &str) -> Result<Option<Vec<Leaf>>, BadPrint> {
    let mut found = None;
    let mut is_device = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Device ") {
            is_device = rest.split_whitespace().next() == Some(device);
            if is_device {
                found.get_or_insert_with(Vec::new);
            }
            continue;
        }
        let Some((page, columns)) = line.split_once(" |") else { continue };
        if !is_device {
            continue;
        }
        let leaf = row(page, columns).ok_or_else(|| BadPrint(line.to_owned()))?;
        found.get_or_insert_with(Vec::new).push(leaf);
    }
    Ok(found)
}

/// A row: a page's number, and the entries of levels 5 to 1 on the way to it.
fn row(page: &str, columns: &str) -> Option<Leaf> {
    let number = |text: &str| u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
    let entries: Vec<u64> = columns.split_whitespace().map(number).collect::<Option<_>>()?;
    // The levels below a large page are left out, or 0.
    let last = entries.iter().rposition(|entry| *entry != 0)?;
    let level = 5u32.checked_sub(u32::try_from(last).ok()?).filter(|level| *level > 0)?;
    Some(leaf(number(page)?.checked_mul(PAGE_BYTES)?, entries[last], level))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn leaf_at(iova: u64, size: u64, address: u64) -> Leaf {
        Leaf { iova, size, address, read: true, write: true }
    }

    /// As 5.10 prints it, all devices in one file.
    const ALL: &str = "\
Device 0000:00:1f.2 with pasid 0 @0x1a2b000
IOVA_PFN\t\tPML5E\t\t\tPML4E\t\t\tPDPE\t\t\tPDE\t\t\tPTE
0x00000000ffff0 |\t0x0000000000000000\t0x0000000000000000\t0x0000000001000003\t0x0000000001001003\t0x0000000001002003

Device 0000:00:01.0 with pasid 0 @0x1a2c000
IOVA_PFN\t\tPML5E\t\t\tPML4E\t\t\tPDPE\t\t\tPDE\t\t\tPTE
0x00000000fffe0 |\t0x0000000000000000\t0x0000000001003003\t0x0000000001004003\t0x0000000001005003\t0x0000000001234001
0x00000000fffe1 |\t0x0000000000000000\t0x0000000001003003\t0x0000000001004003\t0x0000000001005003\t0x0000000001235003
0x0000000100000 |\t0x0000000000000000\t0x0000000001003003\t0x0000000001004003\t0x0000000001400083\t0x0000000000000000
";

    #[test]
    fn finds_a_device_among_all() {
        let found = parse(ALL, "0000:00:01.0").unwrap().unwrap();
        let expected = [
            Leaf { write: false, ..leaf_at(0xfffe_0000, 4096, 0x123_4000) },
            leaf_at(0xfffe_1000, 4096, 0x123_5000),
            leaf_at(0x1_0000_0000, 2 << 20, 0x140_0000),
        ];
        assert_eq!(found, expected);
        assert_eq!(parse(ALL, "0000:00:02.0").unwrap(), None);
    }

    #[test]
    fn reads_prints_without_missing_levels() {
        let text = "Device 0000:00:01.0 @0x1a2c000\nIOVA_PFN         \tPML5E\n\
            0x0000000100000 |\t0x0000000000000000\t0x0000000001003003\t0x0000000001004003\t0x0000000001400083\n";
        let found = parse(text, "0000:00:01.0").unwrap().unwrap();
        assert_eq!(found, [leaf_at(0x1_0000_0000, 2 << 20, 0x140_0000)]);
    }

    #[test]
    fn names_a_line_of_unknown_form() {
        let text = "Device 0000:00:01.0 @0x1\n0x0000000000001 |\tnonsense\n";
        assert!(parse(text, "0000:00:01.0").unwrap_err().0.contains("nonsense"));
        let deep = "Device 0000:00:01.0 @0x1\n0x1 |\t0x1 0x1 0x1 0x1 0x1 0x1\n";
        assert!(parse(deep, "0000:00:01.0").is_err());
    }
}
