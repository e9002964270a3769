//! Block devices below a PCI device, and who uses them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
};

use crate::kernel_files::{KernelFiles, Opener, names};

/// The block devices below a PCI device, and what is on top of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    /// The disks themselves and their partitions, by name.
    pub(crate) disks: BTreeSet<String>,
    /// Each way in which they are used.
    pub(crate) uses: Vec<Use>,
}

/// A way in which a disk is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Use {
    /// A file system of `node` is mounted at `at`.
    Mounted { node: String, at: String },
    /// Pages are swapped to `node`, which is a path.
    Swap { node: String },
    /// A device mapper's, a RAID or a loop device, and so on, stands on `node`.
    Stacked { node: String, above: String, what: String },
    /// A process has `node` open.
    Opened(Opener),
    /// The kernel says that somebody has claimed `node`, and shows not who: ZFS, another mount
    /// namespace, an export to the network.
    Claimed { node: String },
    /// Nobody uses `node`, but it is not empty.
    Data { node: String },
}

pub(crate) fn below(files: &KernelFiles, device: &Path) -> Storage {
    let blocks = Blocks::read(files);
    let disks = blocks.below(device);
    if disks.is_empty() {
        return Storage::default();
    }
    let (stack, mut uses) = blocks.stack(files, &disks);
    uses.extend(mounts(files, &blocks, &stack));
    uses.extend(swaps(files, &stack));
    let nodes = stack.iter().map(|name| Path::new("/dev").join(name)).collect();
    let opened = files.openers(&nodes).into_iter().filter(|o| o.process != std::process::id());
    uses.extend(opened.map(Use::Opened));
    if uses.is_empty() {
        // Who has claimed a partition has claimed the disk, so this is the last net under all that
        // is above.
        let claimed = disks.iter().filter(|name| is_claimed(&files.path("dev").join(name)));
        uses.extend(claimed.map(|node| Use::Claimed { node: node.clone() }));
    }
    if uses.is_empty() {
        let filled = disks.iter().filter(|name| holds_data(&files.path("dev").join(name)));
        uses.extend(filled.map(|node| Use::Data { node: node.clone() }));
    }
    Storage { disks, uses }
}

/// How much of a disk's beginning is looked at: where partition tables, boot loaders and nearly all
/// file systems have something.
const BEGINNING: u64 = 1 << 20;

/// Whether somebody may miss what is on a disk: its beginning is not empty, and not what a workload of
/// ours left there. What can't be read is not known, and others than its owner can't read it.
fn holds_data(node: &Path) -> bool {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(node).and_then(|file| file.take(BEGINNING).read_to_end(&mut bytes));
    let ours = |sector: &[u8]| sector.starts_with(dmarig_pattern::MAGIC);
    read.is_ok() && bytes.chunks(512).any(|sector| sector.iter().any(|b| *b != 0) && !ours(sector))
}

/// All block devices: where they are, and by which number they are known.
struct Blocks {
    /// Their real directories by name.
    paths: BTreeMap<String, PathBuf>,
    /// Their names by `major:minor`.
    numbers: BTreeMap<String, String>,
}

impl Blocks {
    fn read(files: &KernelFiles) -> Self {
        let class = files.path("sys/class/block");
        let mut blocks = Self { paths: BTreeMap::new(), numbers: BTreeMap::new() };
        for name in names(&class) {
            let Ok(path) = class.join(&name).canonicalize() else { continue };
            if let Some(number) = crate::kernel_files::text(&path.join("dev")) {
                blocks.numbers.insert(number, name.clone());
            }
            blocks.paths.insert(name, path);
        }
        blocks
    }

    /// The disks below a device, and their partitions.
    fn below(&self, device: &Path) -> BTreeSet<String> {
        let mut disks = BTreeSet::new();
        // A path of a disk that several controllers may have is hidden here, and what is used is
        // elsewhere, under a name that follows from it. Kernels show it by its directory alone.
        let hidden = names(&device.join("nvme")).into_iter().flat_map(|controller| {
            names(&device.join("nvme").join(controller)).into_iter().filter_map(|n| head_of(&n))
        });
        for head in hidden {
            let Some(path) = self.paths.get(&head) else { continue };
            disks.extend(self.inside(path));
        }
        disks.extend(self.inside(device));
        disks
    }

    /// The devices whose directories are in this one, or are it.
    fn inside(&self, path: &Path) -> Vec<String> {
        let inside = self.paths.iter().filter(|(_, own)| own.starts_with(path));
        inside.map(|(name, _)| name.clone()).collect()
    }

    /// The disks with all that stands on them, and how it does.
    fn stack(&self, files: &KernelFiles, disks: &BTreeSet<String>) -> (BTreeSet<String>, Vec<Use>) {
        let loops = loops(files);
        let (mut stack, mut uses) = (disks.clone(), Vec::new());
        let mut open: VecDeque<String> = disks.iter().cloned().collect();
        while let Some(node) = open.pop_front() {
            let holders = self.paths.get(&node).map(|path| names(&path.join("holders")));
            let backed = loops.iter().filter(|(_, backing)| **backing == node);
            let above = holders.into_iter().flatten().chain(backed.map(|(name, _)| name.clone()));
            for above in above {
                let what = self.paths.get(&above).map(|path| describe(path)).unwrap_or_default();
                uses.push(Use::Stacked { node: node.clone(), above: above.clone(), what });
                // What stands on it may have partitions of its own.
                let parts = self.paths.get(&above).map(|path| self.inside(path));
                for part in parts.into_iter().flatten().chain([above]) {
                    if stack.insert(part.clone()) {
                        open.push_back(part);
                    }
                }
            }
        }
        (stack, uses)
    }
}

/// `nvme0n1` from `nvme0c1n1`, one controller's path to it.
fn head_of(name: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    if !digits(subsystem) || !digits(controller) || !digits(namespace) {
        return None;
    }
    Some(format!("nvme{subsystem}n{namespace}"))
}

/// What a stacked device calls itself: `vg-root (LVM-...)` for a device mapper's.
fn describe(path: &Path) -> String {
    let read = |name| crate::kernel_files::text(&path.join(name)).filter(|text| !text.is_empty());
    match (read("dm/name"), read("md/level")) {
        (Some(name), _) => format!("device mapper's {name}"),
        (None, Some(level)) => level,
        (None, None) => String::new(),
    }
}

/// Loop devices on block devices, with those.
fn loops(files: &KernelFiles) -> BTreeMap<String, String> {
    let backing = |name: String| {
        let file = files.text(&format!("sys/class/block/{name}/loop/backing_file"))?;
        Some((name, node_name(files, &file)?))
    };
    let all = names(&files.path("sys/class/block")).into_iter();
    all.filter(|name| name.starts_with("loop")).filter_map(backing).collect()
}

/// The name of the block device that a path below `/dev` leads to.
fn node_name(files: &KernelFiles, path: &str) -> Option<String> {
    if !path.starts_with("/dev/") {
        return None;
    }
    let resolved = files.resolved(path).unwrap_or_else(|| PathBuf::from(path));
    Some(resolved.file_name()?.to_string_lossy().into_owned())
}

fn mounts(files: &KernelFiles, blocks: &Blocks, stack: &BTreeSet<String>) -> Vec<Use> {
    let mut uses = Vec::new();
    // The host's own beside those of the namespace that this runs in.
    for process in ["self", "1"] {
        let table = files.text(&format!("proc/{process}/mountinfo")).unwrap_or_default();
        for mount in table.lines().filter_map(Mount::parse) {
            let by_number = blocks.numbers.get(mount.number).cloned();
            // A file system over several devices has a number of its own, but names one of them.
            let by_name = mount.source.split(':').filter_map(|source| node_name(files, source));
            let mut nodes = by_number.into_iter().chain(by_name);
            let Some(node) = nodes.find(|node| stack.contains(node)) else { continue };
            let used = Use::Mounted { node, at: unescape(mount.point) };
            if !uses.contains(&used) {
                uses.push(used);
            }
        }
    }
    let mounted = |node: &String| {
        uses.iter().any(|used| matches!(used, Use::Mounted { node: n, .. } if n == node))
    };
    // The other devices of such file systems.
    let others = [("btrfs", "devices"), ("bcachefs", "")].into_iter().flat_map(|(kind, below)| {
        let directory = files.path(&format!("sys/fs/{kind}"));
        names(&directory)
            .into_iter()
            .flat_map(move |id| members(&directory.join(id).join(below), kind))
    });
    let others: Vec<_> =
        others.filter(|(node, _)| stack.contains(node) && !mounted(node)).collect();
    uses.extend(others.into_iter().map(|(node, kind)| Use::Mounted {
        node,
        at: format!("a mount point of its {kind}, which is over several devices"),
    }));
    uses
}

/// The block devices of one file system over several devices.
fn members(directory: &Path, kind: &'static str) -> Vec<(String, &'static str)> {
    let name = |name: String| match kind {
        "bcachefs" => crate::kernel_files::link_name(&directory.join(name).join("block")),
        _ => Some(name),
    };
    names(directory).into_iter().filter_map(name).map(|name| (name, kind)).collect()
}

/// A line of mountinfo (proc(5)).
struct Mount<'a> {
    number: &'a str,
    point: &'a str,
    source: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ');
        let number = front.nth(2)?;
        let point = front.nth(1)?;
        let source = back.split(' ').nth(1)?;
        Some(Self { number, point, source })
    }
}

fn swaps(files: &KernelFiles, stack: &BTreeSet<String>) -> Vec<Use> {
    let table = files.text("proc/swaps").unwrap_or_default();
    let nodes = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let ours = |path: &String| node_name(files, path).is_some_and(|name| stack.contains(&name));
    nodes.map(unescape).filter(ours).map(|node| Use::Swap { node }).collect()
}

/// The kernel writes white space and backslashes in its tables as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        let escaped = rest.get(..3).filter(|_| *first == b'\\').and_then(octal);
        plain.push(escaped.unwrap_or(*first));
        bytes = if escaped.is_some() { &rest[3..] } else { rest };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Whether somebody has claimed a block device for themselves, as each mount, swap and stack does.
///
/// Opening it exclusively for reading changes nothing on it, and wakes nobody who watches it for
/// writers.
fn is_claimed(node: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, node, flags, Mode::empty()).is_err_and(|error| error == Errno::BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_disk_of_a_hidden_path() {
        assert_eq!(head_of("nvme0c1n2").as_deref(), Some("nvme0n2"));
        for other in ["nvme0n1", "nvme0", "nvme0cn1", "nvme0c1", "ng0n1", "nvme0c1n1p1"] {
            assert_eq!(head_of(other), None, "{other}");
        }
    }

    #[test]
    fn unescapes_the_kernels_tables() {
        assert_eq!(unescape(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescape(r"/mnt/\04"), r"/mnt/\04");
        assert_eq!(unescape(r"/mnt/\999"), r"/mnt/\999");
    }

    #[test]
    fn parses_lines_of_mountinfo() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.number, mount.point, mount.source), ("98:0", "/mnt2", "/dev/root"));
        assert!(Mount::parse("36 35 98:0 / /").is_none());
    }
}
