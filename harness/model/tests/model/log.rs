//! Kernel logs: real lines of each version, and lines made to deceive.

use dmarig_model::log::{LogFacts, LogKind, read, warning_spellings};
use dmarig_viommu::log::Access;

use crate::seen::{fault_flood, records};

fn facts(text: &str) -> LogFacts {
    read(&records(text))
}

#[test]
fn real_logs_are_read() {
    let text = |name| match name {
        "5.10" => include_str!("../data/5.10-caching-mode.log"),
        "5.10 strict" => include_str!("../data/5.10-caching-mode-strict.log"),
        "6.1" => include_str!("../data/6.1-caching-mode.log"),
        "6.1 strict" => include_str!("../data/6.1-strict.log"),
        "6.12" => include_str!("../data/6.12-caching-mode.log"),
        "6.12 pt" => include_str!("../data/6.12-caching-mode-pt.log"),
        "7.3" => include_str!("../data/7.3-caching-mode.log"),
        _ => include_str!("../data/7.3-lazy.log"),
    };
    for (name, warnings, domain, policy, caching_mode) in [
        ("5.10", 1, "Translated", None, true),
        ("5.10 strict", 0, "Translated", None, true),
        ("6.1", 1, "Translated", Some("lazy"), true),
        ("6.1 strict", 0, "Translated", Some("strict"), false),
        ("6.12", 1, "Translated", Some("lazy"), true),
        ("6.12 pt", 1, "Passthrough", None, true),
        ("7.3", 1, "Translated", Some("lazy"), true),
        ("7.3 lazy", 0, "Translated", Some("lazy"), false),
    ] {
        let facts = facts(text(name));
        assert_eq!(facts.warnings.len(), warnings, "{name}");
        assert_eq!(facts.default_domain.as_deref(), Some(domain), "{name}");
        assert_eq!(facts.policy.as_deref(), policy, "{name}");
        assert_eq!(facts.cap.map(|cap| cap >> 7 & 1 == 1), Some(caching_mode), "{name}");
        assert_eq!(facts.ecap, Some(0xf0_0f4a), "{name}");
        assert!(facts.enabled && facts.success, "{name}");
        assert_eq!(facts.invalidation.as_deref(), Some("Queued"), "{name}");
        assert_eq!((&*facts.findings, &*facts.faults), (&[][..], &[][..]), "{name}");
    }
}

#[test]
fn every_spelling_of_the_warning_counts_and_nothing_less() {
    assert_eq!(warning_spellings().count(), 3);
    for spelling in warning_spellings() {
        let text = &spelling.text;
        for line in [
            format!("DMAR: {text}"),
            format!("[    1.489488] DMAR: {text}"),
            format!("[    1.489488][    T1] DMAR: {text}"),
            format!("DMAR: {text}DMAR: Intel(R) Virtualization Technology for Directed I/O"),
            format!("DMAR: {text}[    1.5] iommu: x"),
            format!("DMAR: {text}iommu: Default domain type: Translated"),
            format!("DMAR: dmar0: Using Queued invalidationDMAR: {text}"),
        ] {
            assert_eq!(facts(&line).warnings.len(), 1, "{line}");
        }
        for line in [
            text.clone(),
            format!("AMD-Vi: {text}"),
            format!("DMAR: {text} of something else"),
            format!("DMAR: {text}s"),
            format!("DMAR: not so: {text}"),
            format!("DMAR: see \"DMAR: {text}\""),
            format!("systemd[1]: DMAR: {text}"),
            format!("Kernel command line: x=DMAR: {text}"),
            format!("DMAR: {}", text.to_uppercase()),
            format!("DMAR: {}", text.trim_end_matches("virtualization")),
        ] {
            assert_eq!(facts(&line).warnings.len(), 0, "{line}");
        }
    }
    assert!(facts("DMAR: Disable batched IOTLB flush").warnings.is_empty());
    assert!(
        facts("Performance Events: PMU not available due to virtualization").warnings.is_empty()
    );
}

#[test]
fn faults_are_read_in_each_form() {
    for (line, access, device, pasid, address, reason) in [
        (
            "DMAR: [DMA Read] Request device [00:03.0] PASID ffffffff fault addr fffff000 [fault reason 06] PTE Read access is not set",
            Access::Read,
            "00:03.0",
            None,
            0xffff_f000,
            6,
        ),
        (
            "DMAR: [DMA Write] Request device [01:00.0] PASID 2a fault addr 1000 [fault reason 12] non-zero reserved fields in PTE",
            Access::Write,
            "01:00.0",
            Some(42),
            0x1000,
            12,
        ),
        (
            "DMAR: [DMA Write NO_PASID] Request device [00:02.0] fault addr 0xfe000 [fault reason 0x05] PTE Write access is not set",
            Access::Write,
            "00:02.0",
            None,
            0xf_e000,
            5,
        ),
        (
            "DMAR: [DMA Read PASID 0x1f] Request device [00:02.0] fault addr 0xffffffffff000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear",
            Access::Read,
            "00:02.0",
            Some(31),
            0xf_ffff_ffff_f000,
            0x71,
        ),
        (
            "DMAR: [DMA Read NO_PASID] Request device [0000:00:02.0] fault addr 0x7ff0000 [fault reason 0x06] PTE Read access is not set",
            Access::Read,
            "0000:00:02.0",
            None,
            0x7ff_0000,
            6,
        ),
        (
            "DMAR: [INTR-REMAP] Request device [f0:1f.0] fault index 10 [fault reason 37] Blocked a compatibility format interrupt request",
            Access::Interrupt,
            "f0:1f.0",
            None,
            0x10,
            37,
        ),
        (
            "DMAR: [INTR-REMAP] Request device [0xf0:0x1f.0] fault index 0x10 [fault reason 0x25] Blocked a compatibility format interrupt request",
            Access::Interrupt,
            "0xf0:0x1f.0",
            None,
            0x10,
            0x25,
        ),
    ] {
        let facts = facts(line);
        let [fault] = &*facts.faults else { panic!("{line}") };
        assert_eq!((fault.access, &*fault.device, fault.pasid), (access, device, pasid), "{line}");
        assert_eq!((fault.address, fault.reason), (address, reason), "{line}");
        assert_eq!(facts.findings[0].kind, LogKind::DmaFault, "{line}");
    }
    let limited = facts(
        "DMAR: DRHD: handling fault status reg 2\ndmar_fault: 27 callbacks suppressed\nDMAR: [DMA Wri",
    );
    assert!(limited.faults.is_empty());
    assert_eq!(limited.findings.len(), 2);
}

#[test]
fn what_must_not_be_there_is_found() {
    use LogKind::*;
    for (line, kind) in [
        ("DMAR: VT-d detected Invalidation Queue Error: Reason 1", InvalidationError),
        ("DMAR: VT-d detected Invalidation Time-out Error: SID 10", InvalidationError),
        ("DMAR: VT-d detected Invalidation Completion Error: SID 0", InvalidationError),
        ("DMAR: Invalidation Time-out Error (ITE) cleared", InvalidationError),
        ("AMD-Vi: Completion-Wait loop timed out", InvalidationError),
        ("AMD-Vi: IOMMU 0000:00:00.2: Completion-Wait loop timed out", InvalidationError),
        (
            "nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000f address=0xdeadb000 flags=0x0020]",
            DmaFault,
        ),
        (
            "AMD-Vi: Event logged [IO_PAGE_FAULT device=0a:00.0 domain=0x001d address=0x000000000637c000 flags=0x0000]",
            DmaFault,
        ),
        (
            "xhci_hcd 0000:15:00.0: Event logged [IO_PAGE_FAULT domain=0x0000 address=0x00000000fdeaf000 flags=0x0020]",
            DmaFault,
        ),
        (
            "pci 0000:00:00.2: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:06:00.0 address=0x1000]",
            InvalidationError,
        ),
        (
            "pci 0000:00:00.2: AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:06:00.0 pasid=0x00000 address=0x1000 flags=0x0080]",
            DmarError,
        ),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000008", Bug),
        ("BUG: unable to handle page fault for address: ffffc90000000000", Bug),
        ("BUG: KASAN: use-after-free in intel_unmap+0x1/0x2", Sanitizer),
        ("BUG: KCSAN: data-race in a / b", Sanitizer),
        ("BUG: KFENCE: out-of-bounds read in x", Sanitizer),
        ("UBSAN: array-index-out-of-bounds in drivers/iommu/x.c:1:2", Sanitizer),
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]", SoftLockup),
        ("BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 40s!", SoftLockup),
        ("watchdog: Watchdog detected hard LOCKUP on cpu 0", HardLockup),
        ("INFO: task kworker/0:1:12 blocked for more than 120 seconds.", HungTask),
        ("INFO: task systemd-journal:300 blocked in I/O wait for more than 122 seconds.", HungTask),
        ("rcu: INFO: rcu_sched self-detected stall on CPU", RcuStall),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", RcuStall),
        ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {", RcuStall),
        ("rcu: rcu_preempt kthread starved for 5000 jiffies!", RcuStall),
        ("WARNING: possible circular locking dependency detected", Lockdep),
        ("WARNING: suspicious RCU usage", Lockdep),
        ("WARNING: inconsistent lock state", Lockdep),
        ("BUG: scheduling while atomic: kworker/0:1/12/0x00000002", SchedulingWhileAtomic),
        (
            "BUG: sleeping function called from invalid context at mm/slab.h:1",
            SchedulingWhileAtomic,
        ),
        ("list_del corruption. prev->next should be x, but was y", ListCorruption),
        ("refcount_t: underflow; use-after-free.", ListCorruption),
        (
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            GeneralProtection,
        ),
        (
            "Oops: general protection fault, probably for non-canonical address: 0000 [#1]",
            GeneralProtection,
        ),
        ("general protection fault: 0000 [#1] SMP NOPTI", GeneralProtection),
        ("Oops: 0002 [#1] SMP PTI", Oops),
        ("kernel BUG at drivers/iommu/intel/iommu.c:100!", Oops),
        ("Kernel panic - not syncing: Fatal exception", Panic),
        ("WARNING: CPU: 0 PID: 1 at drivers/iommu/dma-iommu.c:1 iommu_dma_unmap+0x1/0x2", Warning),
        (
            "WARNING: drivers/iommu/dma-iommu.c:1 at iommu_dma_unmap+0x1/0x2, CPU#0: swapper/1",
            Warning,
        ),
        ("DMA-API: nvme 0000:00:03.0: device driver frees DMA memory with different size", DmaApi),
        (
            "nvme 0000:00:03.0: swiotlb buffer is full (sz: 65536 bytes), total 32768 (slots), used 0 (slots)",
            Swiotlb,
        ),
        ("DMAR: Failed to allocate root entry", DmarError),
        (
            "DMAR-IR: [Firmware Bug]: ioapic 2 has no mapping iommu, interrupt remapping will be disabled",
            DmarError,
        ),
        ("DMAR: ERROR: DMA PTE for vPFN 0xfffff already set (to 1 not 2)", DmarError),
        ("nvme nvme0: I/O 12 QID 1 timeout, aborting", Nvme),
        (
            "nvme nvme0: I/O tag 12 (300c) opcode 0x2 (I/O Cmd) QID 1 timeout, aborting req_op:READ(0) size:4096",
            Nvme,
        ),
        ("nvme nvme0: I/O 12 QID 1 timeout, completion polled", Nvme),
        ("nvme nvme0: I/O 12(aq:0) timeout: resetting controller", Nvme),
        ("nvme nvme0: Fw activation timeout, reset controller", Nvme),
        ("nvme nvme0: resetting controller due to AER", Nvme),
        ("nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff", Nvme),
        ("nvme0n1: I/O Cmd(0x2) @ LBA 0, 8 blocks, I/O Error (sct 0x0 / sc 0x4)", Nvme),
        ("blk_update_request: I/O error, dev nvme0n1, sector 0 op 0x0:(READ) flags 0x0", IoError),
        (
            "I/O error, dev vda, sector 8 op 0x1:(WRITE) flags 0x8800 phys_seg 1 prio class 2",
            IoError,
        ),
        ("critical medium error, dev vda, sector 0", IoError),
        ("NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out", Network),
        ("e1000e 0000:00:02.0 eth0: Detected Hardware Unit Hang:", Network),
        ("virtio_blk virtio0: requests:id 12 is not a head!", Device),
        ("irq 11: nobody cared (try booting with the \"irqpoll\" option)", Device),
        (
            "swapper/0: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null)",
            Memory,
        ),
        ("Call Trace:", CallTrace),
    ] {
        let found = facts(&format!("[   12.345678] {line}\n[   12.345679] after")).findings;
        let kinds: Vec<LogKind> = found.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [kind], "{line}");
        assert_eq!(found[0].context, ["[   12.345679] after"], "{line}");
    }
}

#[test]
fn what_may_be_there_is_let_be() {
    for line in [
        "software IO TLB: mapped [mem 0x0000000018000000-0x000000001c000000] (64MB)",
        "software IO TLB: area num 1.",
        "DMA-API: preallocated 65536 debug entries",
        "DMA-API: debugging enabled by kernel config",
        "rcu: Hierarchical SRCU implementation.",
        "Spectre V2 : WARNING: Unprivileged eBPF is enabled",
        "NMI watchdog: Perf NMI watchdog permanently disabled",
        "PCI: Using host bridge windows from ACPI; if necessary, use \"pci=nocrs\" and report a bug",
        "DMAR: No RMRR found",
        "nvme nvme0: 1/0/0 default/read/poll queues",
        "nvme nvme0: Shutdown timeout set to 8 seconds",
        "nvme nvme0: detected Apple NVMe controller, set queue depth=2 to work around controller resets",
        "PCI-DMA: Using software bounce buffering for IO (SWIOTLB)",
        "traps: chrome[4321] general protection fault ip:7f2b3c4d5e6f sp:7ffd12345678 error:0 in libc.so.6[7f2b3c400000+195000]",
        "AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.",
        "INFO: task a:1 is blocked on a mutex likely owned by task b:2.",
        "DMAR-IR: x2apic is disabled because BIOS sets x2apic opt out bit.",
        "audit: BUG: is what a user wrote",
    ] {
        assert_eq!(facts(line).findings, [], "{line}");
    }
}

#[test]
fn a_splat_is_one_finding() {
    let splat = "\
------------[ cut here ]------------
WARNING: CPU: 0 PID: 1 at drivers/iommu/dma-iommu.c:1 x+0x1/0x2
Modules linked in:
Call Trace:
 <TASK>
 dump_stack+0x1/0x2
---[ end trace 0 ]---
";
    let found = facts(splat).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, LogKind::Warning);
    let filler = "x\n".repeat(100);
    let kinds = |text: &str| -> Vec<LogKind> {
        facts(text).findings.iter().map(|finding| finding.kind).collect()
    };
    let cut = "------------[ cut here ]------------\n";
    assert_eq!(kinds(&format!("{cut}{filler}Call Trace:\n{filler}WARNING: x\n")).len(), 3);
    assert_eq!(kinds(&format!("{cut}{filler}{cut}WARNING: x\n")).len(), 2);
}

#[test]
fn a_flood_of_one_kind_hides_no_other_and_is_counted() {
    let crash = "BUG: KASAN: use-after-free in intel_unmap+0x1/0x2\nCall Trace:\n";
    for pairs in [60, 5000] {
        let facts = facts(&(fault_flood(pairs) + crash));
        assert_eq!(facts.fault_count, pairs as u64);
        assert_eq!(facts.counts[&LogKind::DmaFault], 2 * pairs as u64);
        assert_eq!(facts.counts[&LogKind::Sanitizer], 1);
        assert_eq!(facts.findings.len(), 101, "{:?}", facts.findings.last());
        assert_eq!(facts.findings[100].kind, LogKind::Sanitizer);
    }
    let facts = facts(&"WARNING: x\n".repeat(1000));
    assert_eq!((facts.findings.len(), facts.count(|_| true)), (100, 1000));
}

#[test]
fn hostile_lines_are_shown_harmless() {
    let found = facts(&format!("BUG: \x1b[2J{}", "x".repeat(100_000))).findings;
    assert!(!found[0].seen.line.contains('\x1b') && found[0].seen.line.len() < 400);
}
