//! Logs from anywhere: of real kernels in the forms in which people pass them on, and excerpts written
//! after public reports.

use dmarig_model::analysis::{Analysis, Power, Presence, analyze};
use serde_json::Value;

use crate::seen::fault_flood;

const LOG_5_10: &str = include_str!("../data/5.10-caching-mode.log");
const LOG_6_1: &str = include_str!("../data/6.1-caching-mode.log");
const LOG_6_12_PT: &str = include_str!("../data/6.12-caching-mode-pt.log");
const LOG_7_3: &str = include_str!("../data/7.3-caching-mode.log");
const LOG_7_3_LAZY: &str = include_str!("../data/7.3-lazy.log");

/// A laptop of which people report faults: two units, no caching mode, a first unit for graphics alone.
const LAPTOP: &str = "\
[    0.000000] Linux version 5.15.0-91-generic (buildd@lcy02) (gcc (Ubuntu 11.4.0) 11.4.0, GNU ld 2.38) #101-Ubuntu SMP Tue Nov 14 13:30:08 UTC 2023 (Ubuntu 5.15.0-91.101-generic 5.15.131)
[    0.000000] Command line: BOOT_IMAGE=/vmlinuz ro quiet intel_iommu=on
[    0.010000] ACPI: RSDP 0x000000007B7FE014 000024 (v02 LENOVO)
[    0.010100] ACPI: DMAR 0x000000007B7A1000 0000A8 (v01 LENOVO TC-S0Z   00001300 PTEC 00000002)
[    0.020000] DMAR: IOMMU enabled
[    0.072000] DMAR: Host address width 39
[    0.072001] DMAR: DRHD base: 0x000000fed90000 flags: 0x0
[    0.072009] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2ff0505e
[    0.072010] DMAR: DRHD base: 0x000000fed91000 flags: 0x1
[    0.072016] DMAR: dmar1: reg_base_addr fed91000 ver 1:0 cap d2008c40660462 ecap f050da
[    0.072020] DMAR: RMRR base: 0x0000007a8b7000 end: 0x0000007a8d6fff
[    0.073500] DMAR-IR: Enabled IRQ remapping in x2apic mode
[    0.400000] iommu: Default domain type: Translated 
[    0.400001] iommu: DMA domain TLB invalidation policy: lazy mode 
[    0.500000] DMAR: No ATSR found
[    0.500100] DMAR: dmar0: Using Queued invalidation
[    0.500200] DMAR: dmar1: Using Queued invalidation
[    0.510000] pci 0000:00:00.0: Adding to iommu group 0
[    0.510100] pci 0000:00:02.0: Adding to iommu group 1
[    0.510200] pci 0000:00:14.0: Adding to iommu group 2
[    0.510300] pci 0000:00:14.2: Adding to iommu group 2
[    0.520000] DMAR: Intel(R) Virtualization Technology for Directed I/O
[    9.000000] DMAR: DRHD: handling fault status reg 3
[    9.000100] DMAR: [DMA Read NO_PASID] Request device [0x00:0x02.0] fault addr 0xfffff000 [fault reason 0x06] PTE Read access is not set
[    9.000200] DMAR: [DMA Write NO_PASID] Request device [0x00:0x02.0] fault addr 0x1000 [fault reason 0x05] PTE Write access is not set
[    9.100000] DMAR: [DMA Read NO_PASID] Request device [0x00:0x14.0] fault addr 0x7a000000 [fault reason 0x02] Present bit in context entry is clear
[   14.000000] dmar_fault: 1048 callbacks suppressed
";

#[track_caller]
fn one(log: &str) -> Analysis {
    let mut found = analyze(log.as_bytes());
    assert_eq!(found.len(), 1, "{log}");
    found.remove(0)
}

#[test]
fn real_kernels_are_as_expected() {
    for (name, log, version, present) in [
        ("5.10", LOG_5_10, "5.10.262", true),
        ("6.1", LOG_6_1, "6.1.176", true),
        ("6.12 pt", LOG_6_12_PT, "6.12.107", true),
        ("7.3", LOG_7_3, "7.3.4", true),
        ("7.3 lazy", LOG_7_3_LAZY, "7.3.4", false),
    ] {
        let found = one(log);
        assert_eq!(found.kernel.version.as_deref(), Some(version), "{name}");
        assert_eq!(found.iommu.power, Power::On, "{name}");
        assert_eq!(found.warning.present, Some(present), "{name}");
        assert_eq!(found.warning.expected.map(|p| p == Presence::Present), Some(present), "{name}");
        assert_eq!(found.odd, [""; 0], "{name}");
        assert_eq!(found.units[0].caching_mode, Some(present), "{name}");
    }
    let found = one(LOG_7_3);
    assert_eq!(found.groups[&2], ["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"]);
    assert!(
        found.mode.policy.starts_with("strict: the policy line has lazy"),
        "{}",
        found.mode.policy
    );
}

/// However it is passed on, it says the same.
#[test]
fn each_form_says_the_same() {
    let said = |log: &str| {
        let found = one(log);
        let mut warning = found.warning;
        warning.lines.clear();
        (found.kernel, found.iommu, found.units, found.mode, warning, found.groups, found.odd)
    };
    let lines = || LOG_6_1.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text));
    let journal: String =
        lines().map(|line| format!("Nov 22 18:41:39 box kernel: {line}\n")).collect();
    let foreign = "Nov 22 18:41:39 box systemd[1]: DMAR: IOMMU disabled\n";
    let human: String =
        lines().map(|line| format!("[Sun Nov 22 18:41:39 2026] {line}\n")).collect();
    let iso: String =
        lines().map(|line| format!("2026-11-22T18:41:39,123456+01:00 {line}\n")).collect();
    let foreign_words: String =
        lines().map(|line| format!("Mär 03 18:41:39 box kernel: {line}\n")).collect();
    let entry = |line: &str| serde_json::json!({"_TRANSPORT": "kernel", "MESSAGE": line});
    let entries: String = lines().map(|line| format!("{}\n", entry(line))).collect();
    let entry = |line: &str| serde_json::json!({"pri": 6, "msg": line});
    let dmesg = serde_json::json!({"dmesg": lines().map(entry).collect::<Vec<_>>()});
    let bare: String = lines().map(|line| format!("{line}\n")).collect();
    let quoted: String = LOG_6_1.lines().map(|line| format!("> > {line}\n")).collect();
    let serial = LOG_6_1.replace('\n', "\r\r\n");
    let real = said(LOG_6_1);
    for (form, log) in [
        ("journal", format!("{journal}{foreign}")),
        ("dmesg -T", human),
        ("journal in German", foreign_words),
        ("journal in JSON", entries),
        ("dmesg in JSON", format!("{dmesg:#}")),
        ("iso", iso),
        ("bare", bare),
        ("quoted", quoted),
        ("serial", format!("SeaBIOS (version 1.16)\r\n\r\niPXE\r\n{serial}")),
        ("coloured", LOG_6_1.replace("DMAR", "\x1b[33mDMAR\x1b[0m")),
    ] {
        assert_eq!(said(&log), real, "{form}");
    }
}

#[test]
fn a_machine_with_two_units_and_faults() {
    let found = one(LAPTOP);
    assert_eq!(found.kernel.version.as_deref(), Some("5.15.131"));
    assert_eq!(found.units.len(), 2);
    assert!(found.units[1].offers.iter().any(|word| word == "interrupt remapping"));
    assert_eq!(
        (found.warning.present, found.warning.expected),
        (Some(false), Some(Presence::Absent))
    );
    assert_eq!(found.interrupt_remapping.as_deref(), Some("x2apic"));
    assert_eq!((found.faults.told, found.faults.suppressed), (3, 1048));
    let worst = &found.faults.devices[0];
    assert_eq!((worst.device.as_str(), worst.count), ("0x00:0x02.0", 2));
    assert_eq!(worst.accesses, [("read", 1), ("write", 1)].into());
    assert_eq!(worst.addresses, ("0x1000".to_owned(), "0xfffff000".to_owned()));
    assert_eq!(found.odd.len(), 1, "{:?}", found.odd);
    assert!(
        found.odd[0].starts_with("3 DMA faults of 0x00:0x02.0, 0x00:0x14.0"),
        "{:?}",
        found.odd
    );
}

#[test]
fn a_warning_that_is_missing_or_too_much_is_odd() {
    let without = LOG_6_1
        .lines()
        .filter(|line| !line.contains("virtualization"))
        .collect::<Vec<_>>()
        .join("\n");
    let found = one(&without);
    assert_eq!(
        (found.warning.present, found.warning.expected),
        (Some(false), Some(Presence::Present))
    );
    assert!(found.odd[0].contains("29b32839725f"), "{:?}", found.odd);
    let extra = LOG_7_3_LAZY.replace(
        "DMAR: Intel(R)",
        "DMAR: IOMMU batching disallowed due to virtualization\n[    1.7] DMAR: Intel(R)",
    );
    let found = one(&extra);
    assert_eq!(
        (found.warning.present, found.warning.expected),
        (Some(true), Some(Presence::Absent))
    );
    assert_eq!(found.odd.len(), 1, "{:?}", found.odd);
    let other = LOG_6_1.replace(
        "IOMMU batching disallowed due to virtualization",
        "Disable batched IOTLB flush due to virtualization",
    );
    assert!(
        one(&other).odd[0].contains("is the wording of kernels <5.12"),
        "{:?}",
        one(&other).odd
    );
}

/// What the log does not have is not made up.
#[test]
fn what_can_not_be_told_is_said_to_be_so() {
    let only = |words: &[&str]| -> String {
        let kept = |line: &&str| words.iter().any(|word| line.contains(word));
        LOG_6_1.lines().filter(kept).map(|line| format!("{line}\n")).collect()
    };
    let found = one(&only(&["Linux version", "Command line", "reg_base_addr"]));
    assert_eq!((found.warning.present, found.warning.expected), (None, Some(Presence::Present)));
    // Strict on an old kernel would not say it: it depends on version and policy.
    let found = one(&only(&["reg_base_addr", "Queued", "Intel(R)"]));
    assert_eq!((found.warning.present, found.warning.expected), (Some(false), None));
    assert!(found.warning.untold[0].contains("version"), "{:?}", found.warning.untold);
    let found = one(&only(&["Linux version", "Queued", "Intel(R)"]));
    assert!(found.warning.untold[0].contains("caching mode"), "{:?}", found.warning.untold);
    // A distribution's kernel that carries later changes.
    let vendor = LOG_6_12_PT.replace("6.12.107+deb13-amd64", "4.18.0-553.el8_10.x86_64");
    let found = one(&vendor);
    assert_eq!(found.warning.expected, None);
    assert!(found.warning.untold.iter().any(|why| why.contains("vendor")), "{:?}", found.warning);
    // Nor is it odd that its warning is worded as in later kernels, which it took it from.
    let vendor = LOG_6_1.replace("6.1.0-50-amd64", "5.14.0-427.13.1.el9_4.x86_64");
    assert_eq!(one(&vendor).odd, [""; 0]);
}

/// What says nothing of the IOMMU in a form that is not known is not praised.
#[test]
fn a_form_that_is_not_known_is_odd() {
    let form = |line: &str| format!("x|{}\n", line.split_once("] ").unwrap().1);
    let log: String = LAPTOP.lines().map(form).collect();
    let found = one(&log);
    assert!(found.odd[0].contains("unknown prefix before `DMAR: `"), "{:?}", found.odd);
    assert!(found.hints.iter().any(|hint| hint.contains("short-monotonic")), "{:?}", found.hints);
    // The driver's last word among them is not taken for its start.
    assert_eq!((found.iommu.power, found.faults.told), (Power::Untold, 0));
}

/// As `head` or a full disk leave it, and with what `journalctl` says beside it.
#[test]
fn json_that_is_broken_hides_no_crash() {
    let bug = "BUG: kernel NULL pointer dereference, address: 0";
    let journal = format!("{{\"_TRANSPORT\":\"kernel\",\"MESSAGE\":\"{bug}\"}}\n");
    let dmesg = format!("{{\"dmesg\":[{{\"pri\":3,\"time\":2.5,\"msg\":\"{bug}\"}}");
    for log in [
        dmesg.clone(),
        format!("Hint: You are currently not seeing messages from other users.\n{journal}"),
        format!("-- Boot x --\n{journal}-- Boot y --\n"),
    ] {
        let found = one(&log);
        assert!(found.kernel_log, "{log}");
        assert_eq!(found.odd.len(), 1, "{log}: {:?}", found.odd);
        assert!(found.odd[0].contains(bug), "{log}: {:?}", found.odd);
    }
    for log in [&journal[..60], &dmesg[..60]] {
        let found = one(log);
        assert!(found.kernel_log, "{log}");
        let told = "1 messages in JSON are broken, and were not read (the first is line 1)";
        assert_eq!(found.odd, [told], "{log}");
    }
}

#[test]
fn lines_in_json_are_the_logs() {
    let entry = |text: &str| serde_json::json!({"pri": 6, "time": 1.5, "msg": text});
    let log = serde_json::json!({"dmesg": [entry("Linux version 6.1.1 x"), entry("BUG: x")]});
    let log = format!("{log:#}\n");
    let line = |words: &str| log.lines().position(|line| line.contains(words)).unwrap() as u64 + 1;
    let found = one(&log);
    assert_eq!(found.lines, (line("Linux version"), line("BUG")));
    assert_eq!(found.splats[0].at, line("BUG"));
}

#[test]
fn a_log_is_a_kernels_by_its_words_or_its_form() {
    for (log, kernels) in [
        ("WARNING: modpost: missing MODULE_DESCRIPTION() in lib/foo.o\n", false),
        ("WARNING: vmlinux.o(.text+0x1c): Section mismatch in reference at foo.c:12\n", false),
        ("hello\n", false),
        ("", false),
        ("WARNING: CPU: 3 PID: 77 at drivers/iommu/intel/iommu.c:1234 a+0x11/0x22\n", true),
        ("WARNING: CPU: 3 PID: 77 at a+0x11/0x22 [b]\n", true),
        ("WARNING: at drivers/iommu/intel/iommu.c:1234 a+0x11/0x22()\n", true),
        ("WARNING: drivers/iommu/dma-iommu.c:1 at a+0x1/0x2, CPU#0: swapper/1\n", true),
        ("[ 9000.100000] usb 1-1: new high-speed USB device number 1 using xhci_hcd\n", true),
        ("Nov 22 18:41:39 box kernel: usb 1-1: new high-speed USB device\n", true),
        ("[ 9000.100000] box sshd[1]: hello\n", false),
        ("BUG: KASAN: use-after-free in x\n", true),
        (LOG_6_1, true),
    ] {
        assert_eq!(one(log).kernel_log, kernels, "{log}");
    }
}

/// Its faults are counted, and nothing is said of a DMAR table that it can't have.
#[test]
fn a_machine_with_amds_iommu_is_not_judged() {
    let start = "\
[    0.000000] Linux version 6.6.13 (a@b) (gcc) #1 SMP
[    0.020000] ACPI: FACP 0x0000000079B8A000 000114 (v06 LENOVO TP-N2H   00001430 PTEC 00000002)
[    0.044000] pci 0000:00:00.2: AMD-Vi: IOMMU performance counters supported
";
    let found = one(&format!(
        "{start}\
[   25.000000] nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000f address=0xdeadb000 flags=0x0020]
[   25.000000] nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000f address=0xdeadc000 flags=0x0000]
[   26.000000] AMD-Vi: Event logged [IO_PAGE_FAULT device=0a:00.0 domain=0x001d address=0x000000000637c000 flags=0x0000]
"
    ));
    assert_eq!(found.iommu.power, Power::Untold);
    assert!(found.iommu.why.contains("AMD-Vi"), "{:?}", found.iommu);
    assert_eq!(found.odd, ["3 DMA faults of 0000:01:00.0, 0a:00.0"]);
    let worst = &found.faults.devices[0];
    assert_eq!(worst.accesses, [("read", 1), ("write", 1)].into());
    assert_eq!(worst.addresses, ("0xdeadb000".to_owned(), "0xdeadc000".to_owned()));
    assert!(worst.reasons.is_empty());
    for word in ["DMAR", "journalctl", "iommu.strict"] {
        assert!(!found.hints.iter().any(|hint| hint.contains(word)), "{:?}", found.hints);
    }
    // On Intel's machines a module says that this is none of AMD's.
    let module = "AMD-Vi: AMD IOMMUv2 functionality not available on this system";
    let found = one(&start.replace("pci 0000:00:00.2: AMD-Vi: IOMMU performance counters", module));
    assert_eq!(found.iommu.power, Power::Off);
}

/// One that tells of broken tables is no device's fault, and one of nothing mapped is no table's.
#[test]
fn each_reason_of_scalable_mode_is_told_by_its_own_number() {
    for (reason, says, mostly) in [
        ("0x30", "SM: Invalid Root Table Address", "tables are broken"),
        ("0x39", "SM: Present bit in Root Entry is clear", "not attached"),
        ("0x3a", "SM: Non-zero reserved field set in Root Entry", "tables are broken"),
        ("0x40", "SM: Error attempting to access Context Entry", "tables are broken"),
        ("0x44", "SM: DTE field in Context Entry is clear", "ATS is on"),
        ("0x58", "SM: Error attempting to access PASID Table Entry", "tables are broken"),
        ("0x59", "SM: Present bit in PASID Table Entry is clear", "not attached"),
        ("0x70", "SM: Error attempting to access first-level paging entry", "tables are broken"),
        ("0x71", "SM: Present bit in first-level paging entry is clear", "never mapped"),
        (
            "0x72",
            "SM: Non-zero reserved field set in first-level paging entry",
            "tables are broken",
        ),
        ("0x79", "SM: Read/Write permission error in second-level paging entry", "never mapped"),
        ("0x80", "SM: Address in first-level translation is not canonical", "wider"),
        ("0x85", "SM: No write permission for Write/AtomicOp request", "never mapped"),
    ] {
        let found = one(&format!(
            "[    9.0] DMAR: [DMA Write NO_PASID] Request device [03:00.0] fault addr 0x1000 [fault reason {reason}] {says}\n"
        ));
        let told = &found.faults.devices[0].reasons[0];
        assert_eq!(told.says, says);
        assert!(told.mostly.is_some_and(|why| why.contains(mostly)), "{reason}: {told:?}");
        let strict = found.hints.iter().any(|hint| hint.contains("iommu.strict=1"));
        assert_eq!(strict, mostly == "never mapped", "{reason}: {:?}", found.hints);
    }
    let unknown =
        "DMAR: [DMA Write] Request device [03:00.0] fault addr 1000 [fault reason 96] Unknown\n";
    assert_eq!(one(unknown).faults.devices[0].reasons[0].mostly, None);
}

#[test]
fn faults_that_name_no_device_are_odd_too() {
    let found = one("[    9.000000] DMAR: DRHD: handling fault status reg 3\n");
    assert_eq!(found.odd, ["1 lines of DMA faults that name no device"]);
}

/// Where the kernel has no line for it, the command line is asked.
#[test]
fn how_devices_are_mapped_is_told_without_the_kernels_lines() {
    let log = |version: &str, words: &str| {
        one(&format!(
            "\
[    0.000000] Linux version {version} (a@b) (gcc) #1 SMP
[    0.004000] Command line: ro {words}
[    0.044000] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2ff0505e
[    0.092000] DMAR: dmar0: Using Queued invalidation
[    0.104000] DMAR: Intel(R) Virtualization Technology for Directed I/O
"
        ))
        .mode
    };
    let mode = log("4.19.304", "intel_iommu=on iommu=pt");
    assert_eq!((mode.default_domain.as_deref(), mode.chosen_by_user), (Some("Passthrough"), true));
    assert!(mode.policy.starts_with("devices are mapped one to one"), "{mode:?}");
    for (version, words, policy) in [
        (
            "4.19.304",
            "intel_iommu=on",
            "lazy by the command line; kernels before 5.14.0 have no line",
        ),
        ("6.1.76", "intel_iommu=on", "unknown: the log does not have its line"),
        ("4.18.0-553.el8_10.x86_64", "intel_iommu=on", "unknown: kernels before 5.14.0"),
    ] {
        let mode = log(version, words);
        assert!(mode.policy.starts_with(policy), "{version}: {mode:?}");
        assert_eq!(mode.default_domain, None, "{version}");
    }
    let off =
        "[    0.0] Linux version 6.1.76 (a@b) (gcc) #1\n[    0.0] Command line: ro iommu=off\n";
    assert_eq!(one(off).mode.policy, "none: the IOMMU is off");
}

#[test]
fn off_is_told_with_its_reason() {
    let banner = "[    0.000000] Linux version 6.1.1 (a@b) (gcc) #1 SMP\n";
    for (log, power, hint) in [
        (
            "[    0.0] Command line: ro intel_iommu=off\n[    0.100000] DMAR: IOMMU disabled\n",
            Power::Off,
            "without `intel_iommu=off`",
        ),
        (
            "[    0.010000] ACPI: FACP 0x1 2 (v01 A B 00000001 C 00000001)\n[   30.000000] done\n",
            Power::Off,
            "no DMAR table",
        ),
        (
            "[    0.010000] ACPI: DMAR 0x7B7A1000 0000A8 (v01 LENOVO TC-S0Z   00001300 PTEC 00000002)\n[   30.000000] done\n",
            Power::Off,
            "`intel_iommu=on`",
        ),
        // The time of day does not tell how long the kernel runs, programs do.
        (
            "ACPI: DMAR 0x7B7A1000 0000A8 (v01 LENOVO TC-S0Z   00001300 PTEC 00000002)\nsystemd[1]: Detected architecture x86-64.\n",
            Power::Off,
            "`intel_iommu=on`",
        ),
        (
            "ACPI: DMAR 0x7B7A1000 0000A8 (v01 LENOVO TC-S0Z   00001300 PTEC 00000002)\nRun /init as init process\n",
            Power::Off,
            "`intel_iommu=on`",
        ),
        (
            "ACPI: DMAR 0x7B7A1000 0000A8 (v01 LENOVO TC-S0Z   00001300 PTEC 00000002)\n",
            Power::Untold,
            "journalctl",
        ),
        (
            "[    1.000000] nvme nvme0: 1/0/0 default/read/poll queues\n",
            Power::Untold,
            "journalctl",
        ),
    ] {
        let found = one(&format!("{banner}{log}"));
        assert_eq!(found.iommu.power, power, "{log}");
        assert!(found.hints.iter().any(|told| told.contains(hint)), "{log}: {:?}", found.hints);
    }
}

#[test]
fn boots_are_told_apart_and_a_played_back_console_is_one() {
    assert_eq!(analyze(format!("{LOG_5_10}{LOG_7_3}").as_bytes()).len(), 2);
    let early: String = LOG_5_10.lines().take(6).map(|line| format!("{line}\n")).collect();
    assert_eq!(analyze(format!("{early}{LOG_5_10}").as_bytes()).len(), 1);
}

/// Firmware is none of it, and a kernel that crashed before it is.
#[test]
fn what_stands_before_the_first_boot_is_told_where_it_is_a_kernels() {
    let firmware = "SeaBIOS (version 1.16)\niPXE\nWARNING: no console will be available to OS\n";
    let crash = "BUG: kernel NULL pointer dereference, address: 0\nOops: 0000 [#1] PREEMPT SMP\n\
                 Kernel panic - not syncing: Fatal exception\n";
    let quiet = "usb 1-1: new high-speed USB device\n";
    let boot = "Linux version 6.1.1 (a@b) (gcc) #1 SMP\nCommand line: quiet\n";
    let form = |prefix: &str, log: &str| -> String {
        log.lines().map(|line| format!("{prefix}{line}\n")).collect()
    };
    for prefix in
        ["", "[    1.000000] ", "Nov 22 18:41:39 box kernel: ", "[Sun Nov 22 18:41:39 2026] "]
    {
        let found = analyze(form(prefix, &format!("{crash}{boot}")).as_bytes());
        assert_eq!(found.len(), 2, "{prefix}");
        assert_eq!((found[0].odd.len(), found[1].odd.len()), (3, 0), "{prefix}");
        assert_eq!(found[1].lines, (4, 5), "{prefix}");
        let found = analyze(form(prefix, &format!("{quiet}{boot}")).as_bytes());
        assert_eq!(found.len(), if prefix.is_empty() { 1 } else { 2 }, "{prefix}");
        let found = analyze(format!("{firmware}{}", form(prefix, boot)).as_bytes());
        assert_eq!((found.len(), found[0].lines), (1, (4, 5)), "{prefix}");
    }
}

#[test]
fn splats_are_told_with_their_first_lines_and_the_kernel_from_them() {
    let log = "\
[  100.000000] ------------[ cut here ]------------
[  100.000001] WARNING: CPU: 0 PID: 1 at drivers/iommu/dma-iommu.c:1 iommu_dma_unmap+0x1/0x2
[  100.000002] Modules linked in: nvme
[  100.000003] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0-50-amd64 #1  Debian 6.1.176-1
[  100.000004] Call Trace:
";
    let found = one(log);
    assert_eq!(found.kernel.version.as_deref(), Some("6.1.176"));
    assert_eq!(found.splats.len(), 1, "{:?}", found.splats);
    assert_eq!((found.splats[0].at, found.splats[0].context.len()), (2, 3));
    assert!(found.odd[0].starts_with("warning: line 2: "), "{:?}", found.odd);
}

#[test]
fn a_crash_behind_a_flood_of_faults_is_told() {
    let found = one(&format!("{}BUG: KASAN: use-after-free in x\n", fault_flood(60)));
    assert_eq!(found.faults.told, 60);
    let told = |odd: &String| odd.starts_with("sanitizer: line 121: BUG: KASAN");
    assert!(found.odd.iter().any(told), "{:?}", found.odd);
    let found = one(&"WARNING: x\n".repeat(250));
    let more = "245 more lines that should not be there";
    assert_eq!(found.odd.last().map(String::as_str), Some(more), "{:?}", found.odd);
}

/// Whether a sign that steers a terminal is in any of its texts.
fn steers(document: &Value) -> bool {
    let steers = |text: &str| {
        text.contains(|c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202e}'))
    };
    match document {
        Value::String(text) => steers(text),
        Value::Array(all) => all.iter().any(self::steers),
        Value::Object(all) => all.iter().any(|(name, one)| steers(name) || self::steers(one)),
        _ => false,
    }
}

#[test]
fn hostile_logs_are_bounded_and_escaped() {
    let evil = "[    0.000000] Linux version \x1b]0;x\x07\u{202e}6.1 \u{7}\n\
                [    0.0] Command line: \u{202e}\u{8}x\n\
                ACPI: DMAR 0x1 2 (v01 \u{202e}EVIL 00000001 C 00000001)\n\
                BUG: \u{7}\u{202e}\n\
                iommu: Adding device \u{1b}[31m\u{9b}2J\u{8}x to group 7\n\
                DMAR-IR: Enabled IRQ remapping in x\u{200d}2apic mode\n\
                iommu: Default domain type: Trans\u{200d}lated\n\
                iommu: DMA domain TLB invalidation policy: la\u{200d}zy mode\n\
                DMAR: [DMA Read] Request device [00:03.0] fault addr 0 [fault reason 06] \u{9b}2J\u{8}\n";
    let found = one(evil);
    assert_eq!(found.groups[&7], [r"\u{9b}2J\u{8}x"]);
    let document = serde_json::to_value(&found).unwrap();
    assert!(!steers(&document), "{document:?}");
    let flood: String = (0..10_000)
        .map(|at| format!("DMAR: [DMA Read] Request device [{:02x}:{:02x}.{}] fault addr {at:x} [fault reason 06] x\npci 0000:00:00.{at:x}: Adding to iommu group {at}\nDMAR: dmar{}: reg_base_addr 0 ver 1:0 cap 0 ecap 0\n", at / 2048 % 256, at / 8 % 256, at % 8, at % 10_000))
        .collect();
    let found = one(&flood);
    assert!(found.faults.devices.len() <= 4096 && found.groups.len() <= 4096);
    assert!(found.units.len() <= 256 && found.splats.len() == 100);
    let swallowed = format!("dmar_fault: {} callbacks suppressed\n", u64::MAX);
    let found = one(&format!("{LAPTOP}{swallowed}{swallowed}"));
    assert_eq!((found.faults.told, found.faults.suppressed), (3, u64::MAX));
    for bytes in [&b""[..], b"\n\r\n", &[0xff; 100], b"[    ", b"Linux version", b"> > >"] {
        let _ = analyze(bytes);
    }
}
