//! A git history of a real kernel: Debian's source, and fourteen commits on top of it.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use dmarig_kernels::Edits;

use crate::{
    bisecting::{data, imported},
    place::{Place, real_cache},
};

/// The source that it begins with.
const SOURCE: &str = "linux-5.10";

/// What a commit does.
enum Change {
    /// In this file, the text that stands there once becomes another.
    Edit(&'static str, &'static str, &'static str),
    /// What that of the commit with this number did is taken back.
    Back(usize),
    /// The known bug of this name.
    Bug(&'static str),
}
use Change::{Back, Bug, Edit};

/// The driver under test.
pub(super) const DRIVER: &str = "drivers/iommu/intel/iommu.c";

/// The number of the commit that fails an expectation.
pub(super) const FAILS: usize = 12;

/// The number of the commit that only takes time: each unmap counts the ids of all domains.
pub(super) const SLOW: usize = 6;

/// The number of the commit that does not boot. It is the middle, so that every bisection meets it.
pub(super) const NO_BOOT: usize = 7;

/// The numbers of those that don't build; one of them is what is tried after the middle.
pub(super) const NO_BUILD: [usize; 2] = [4, 10];

/// The number of the last one.
pub(super) const LAST: usize = 14;

/// The commits after the first one.
const COMMITS: [(&str, Change); LAST] = [
    (
        "nvme-pci: Say which memory buffer is meant",
        Edit(
            "drivers/nvme/host/pci.c",
            "\"failed to register the CMB\\n\"",
            "\"failed to register the controller's memory buffer\\n\"",
        ),
    ),
    // In the same path as the slow one.
    (
        "iommu/vt-d: Do not unmap what has no pages",
        Edit(
            DRIVER,
            "last_pfn = start_pfn + nrpages - 1;\n\n\tif (dev_is_pci(dev))\n\t\tpdev",
            "last_pfn = start_pfn + nrpages - 1;\n\tif (WARN_ON_ONCE(!nrpages))\n\t\treturn;\n\n\
             \tif (dev_is_pci(dev))\n\t\tpdev",
        ),
    ),
    (
        "e1000e: Print registers wider",
        Edit(
            "drivers/net/ethernet/intel/e1000e/netdev.c",
            "pr_info(\"%-15s %08x\\n\",\n\t\t\treginfo->name",
            "pr_info(\"%-16s %08x\\n\",\n\t\t\treginfo->name",
        ),
    ),
    (
        "iommu/vt-d: Let initialisation begin with what is forced on",
        Edit(
            DRIVER,
            "force_on = (!intel_iommu_tboot_noforce && tboot_force_iommu()) ||",
            "force_on = (!intel_iommu_tboot_noforce && tboot_force_iommu() ||",
        ),
    ),
    ("iommu/vt-d: Close what was opened", Back(4)),
    (
        "iommu/vt-d: Make sure that an unmap leaves its domain an id",
        Edit(
            DRIVER,
            "freelist = domain_unmap(domain, start_pfn, last_pfn);\n\tif (intel_iommu_strict ||",
            "freelist = domain_unmap(domain, start_pfn, last_pfn);\n\
             \tWARN_ON_ONCE(bitmap_weight(iommu->domain_ids, cap_ndoms(iommu->cap)) < 1);\n\
             \tif (intel_iommu_strict ||",
        ),
    ),
    (
        "iommu/vt-d: Insist on being forced on",
        Edit(
            DRIVER,
            "if (iommu_init_mempool()) {",
            "BUG_ON(!force_on);\n\tif (iommu_init_mempool()) {",
        ),
    ),
    ("iommu/vt-d: Take what was not forced on, too", Back(7)),
    (
        "serial: 8250: Name the driver by both chips",
        Edit(
            "drivers/tty/serial/8250/8250_core.c",
            "\"Serial: 8250/16550 driver, %d ports",
            "\"Serial: 8250 and 16550 driver, %d ports",
        ),
    ),
    (
        "iommu/vt-d: Name the PASID of requests without one by what it is for",
        Edit(
            "drivers/iommu/intel/pasid.h",
            "#define PASID_RID2PASID\t",
            "#define PASID_OF_REQUESTS\t",
        ),
    ),
    ("iommu/vt-d: Call it as those who use it do", Back(10)),
    ("iommu/vt-d: Batch flushes wherever it was not forbidden", Bug("fix-reverted")),
    (
        "iommu/iova: Tell both ends of what can't be reserved",
        Edit(
            "drivers/iommu/iova.c",
            "iova->pfn_lo, iova->pfn_lo);\n\t}\n\tspin_unlock",
            "iova->pfn_lo, iova->pfn_hi);\n\t}\n\tspin_unlock",
        ),
    ),
    (
        "virtio-blk: Write the size of blocks without a dash",
        Edit("drivers/block/virtio_blk.c", "%d-byte logical blocks", "%d byte logical blocks"),
    ),
];

/// The first line of a commit's message.
pub(super) fn subject(number: usize) -> &'static str {
    COMMITS[number - 1].0
}

/// A bare repository with that history, whose commits have the tags `c0` to `c14`.
pub(super) fn repository(place: &Place) -> String {
    let source = real_cache().source(SOURCE).unwrap_or_else(|error| {
        panic!("this test takes {SOURCE}: run `dmarig images fetch {SOURCE}` ({error})")
    });
    let root = source.unwrap().root;
    imported(place, |stream| commits(stream, &root))
}

fn commits(stream: &mut impl Write, root: &Path) {
    first(stream, root);
    let mut files = BTreeMap::new();
    for (number, (subject, change)) in (1..).zip(&COMMITS) {
        begin(stream, number, subject);
        for (file, find, replace) in edits(change) {
            let text: &mut String = files
                .entry(file.clone())
                .or_insert_with(|| fs::read_to_string(root.join(&file)).unwrap());
            assert_eq!(text.matches(&find).count(), 1, "`{find}` in {file}, for {subject}");
            *text = text.replacen(&find, &replace, 1);
            writeln!(stream, "M 100644 inline {file}").unwrap();
            data(stream, text.as_bytes());
        }
        end(stream, number);
    }
}

/// A change as files with what is found and what replaces it.
fn edits(change: &Change) -> Vec<(String, String, String)> {
    match change {
        Edit(file, find, replace) => vec![((*file).into(), (*find).into(), (*replace).into())],
        Back(number) => {
            let Edit(file, find, replace) = COMMITS[number - 1].1 else { unreachable!() };
            vec![(file.to_owned(), replace.to_owned(), find.to_owned())]
        }
        Bug(id) => {
            let edits = Edits::load(id, Some(SOURCE)).unwrap().edits.into_iter();
            edits.map(|edit| (edit.file, edit.find, edit.replace)).collect()
        }
    }
}

/// The commit of Debian's files.
fn first(stream: &mut impl Write, root: &Path) {
    begin(stream, 0, "Linux 5.10, as Debian has it");
    for (name, path) in sources(root) {
        let meta = fs::symlink_metadata(&path).unwrap();
        let (mode, content) = if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            ("120000", target.to_str().unwrap().as_bytes().to_vec())
        } else if meta.mode() & 0o100 == 0 {
            ("100644", fs::read(&path).unwrap())
        } else {
            ("100755", fs::read(&path).unwrap())
        };
        writeln!(stream, "M {mode} inline {name}").unwrap();
        data(stream, &content);
    }
    end(stream, 0);
}

fn begin(stream: &mut impl Write, number: usize, subject: &str) {
    let time = 1_600_000_000 + 86_400 * number;
    writeln!(stream, "commit refs/heads/main\nmark :{}", number + 1).unwrap();
    writeln!(stream, "committer A Developer <developer@example.org> {time} +0000").unwrap();
    data(stream, subject.as_bytes());
    if number > 0 {
        writeln!(stream, "from :{number}").unwrap();
    }
}

fn end(stream: &mut impl Write, number: usize) {
    write!(stream, "\nreset refs/tags/c{number}\nfrom :{}\n\n", number + 1).unwrap();
}

/// The files of a source by their names: of what no kernel of ours has, only the makefiles and the
/// configuration.
fn sources(root: &Path) -> Vec<(String, PathBuf)> {
    let mut all = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.is_symlink() {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if is_needed(&name) {
                all.push((name, path));
            }
        }
    }
    all.sort();
    all
}

fn is_needed(name: &str) -> bool {
    const NOT: [&str; 12] = [
        "Documentation/",
        "drivers/gpu/drm/",
        "drivers/infiniband/",
        "drivers/media/",
        "drivers/net/wireless/",
        "drivers/scsi/",
        "drivers/staging/",
        "drivers/usb/",
        "samples/",
        "sound/",
        "tools/perf/",
        "tools/testing/",
    ];
    let file = name.rsplit('/').next().unwrap_or(name);
    let rules = ["Kconfig", "Makefile", "Kbuild"];
    let other = |of: &str, ours: &str| name.starts_with(of) && !name.starts_with(ours);
    rules.iter().any(|rule| file.starts_with(rule))
        || !(NOT.iter().any(|not| name.starts_with(not))
            || other("arch/", "arch/x86/")
            || other("drivers/net/ethernet/", "drivers/net/ethernet/intel/e1000e/"))
}
