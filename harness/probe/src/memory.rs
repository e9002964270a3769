//! Memory of the guest, as the device may have it: through its mappings and in no other way.
//!
//! One lock holds mappings, files and what is known of buffers, so an unmapping that was answered
//! is one after which no access is under way, as with a physical IOMMU.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use dmarig_model::{
    coherence::{Coherence, TablesSource, mapping_of_leaf, ram_offset},
    probe::{Mapping as Told, PAGE_BYTES, ProbeCounts, Tables as Kind},
    viommu::VIOMMUS,
};
use dmarig_viommu::tables::{FunctionTables, GuestPages, PciFunction};
use rustix::{fs::FileType, io::Errno};

use crate::{
    follow::{Follow, Request},
    protocol::DmaMap,
    shadow::{Access, FileId, MapError, MapId, Mapping, Piece, Refusal, Shadow},
};

/// Lines of a kind that a report has at most.
pub(crate) const MAX_LINES: usize = 8;

/// The guest's memory behind its mappings.
#[derive(Debug)]
pub struct Memory {
    inner: Mutex<Inner>,
    start: Instant,
    spent: Spent,
}

/// What is spent on serving the device, beside the shadow.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    pub(crate) messages: AtomicU64,
    /// On messages, the shadow included.
    pub(crate) socket_ns: AtomicU64,
    pub(crate) command_ns: AtomicU64,
    pub(crate) sleeps: AtomicU64,
}

impl Spent {
    /// Adds to one of them.
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    /// Adds the time since `began`.
    pub(crate) fn add_time(counter: &AtomicU64, began: Instant) {
        Self::add(counter, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn all(&self) -> [&AtomicU64; 4] {
        [&self.messages, &self.socket_ns, &self.command_ns, &self.sleeps]
    }
}

/// An access that wasn't possible.
#[derive(Debug, thiserror::Error)]
#[error("{} of {size:#x} bytes at {iova:#x}: {why}", if *.write { "write" } else { "read" })]
pub struct Fault {
    /// First address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it was a write.
    pub write: bool,
    /// Why.
    pub why: FaultKind,
}

/// Why an access wasn't possible.
#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    /// The mappings don't have it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The guest's RAM file doesn't.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// A range of I/O virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
}

#[derive(Debug, Default)]
struct Inner {
    shadow: Shadow,
    files: Vec<MemoryFile>,
    follow: Follow,
    counts: Window,
    pieces: Vec<Piece>,
}

/// A file of the guest's memory, known by device and inode: each mapping brings a descriptor of its
/// own for the same few files.
#[derive(Debug)]
struct MemoryFile {
    identity: (u64, u64),
    file: File,
}

/// What is counted of mappings and accesses.
#[derive(Debug, Default)]
struct Window {
    counts: ProbeCounts,
    began_ns: u64,
    changed_ns: u64,
    /// Live mappings times nanoseconds.
    integral: u128,
}

impl Window {
    fn live_changes(&mut self, live: usize, now_ns: u64) {
        self.integral += live as u128 * u128::from(now_ns.saturating_sub(self.changed_ns));
        self.changed_ns = now_ns;
    }
}

impl Memory {
    /// Memory with nothing mapped.
    #[must_use]
    pub fn new(follow: bool) -> Self {
        let inner = Inner { follow: Follow::new(follow), ..Inner::default() };
        Self { inner: Mutex::new(inner), start: Instant::now(), spent: Spent::default() }
    }

    /// What is spent beside the shadow, for those who spend it.
    pub(crate) fn spent(&self) -> &Spent {
        &self.spent
    }

    /// Nanoseconds since this memory was made: the clock of its mappings.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes a mapping to memory in a file; without a file, one that can't be used from here.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn map(&self, map: &DmaMap, fd: Option<OwnedFd>) -> Result<(), Errno> {
        let began = self.now_ns();
        let identity = fd.as_ref().map(|fd| identity(fd, map)).transpose()?;
        let mut inner = self.lock();
        let file = match (fd, identity) {
            (Some(fd), Some(identity)) => inner.file(fd, identity)?,
            _ => FileId::NONE,
        };
        let access = Access { read: map.read, write: map.write };
        let live = inner.shadow.len();
        let made = inner.shadow.map(map.iova, map.size, (file, map.offset), access, began);
        made.map_err(|error| refuse(&error))?;
        let peak = live as u64 + 1;
        let window = &mut inner.counts;
        window.live_changes(live, began);
        window.counts.maps += 1;
        window.counts.mapped_bytes += map.size;
        window.counts.peak = window.counts.peak.max(peak);
        window.counts.shadow_ns += self.now_ns() - began;
        Ok(())
    }

    /// Takes all mappings in a range away. Nothing may be there: QEMU takes down whole address
    /// spaces by powers of two.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        self.take(|shadow, gone| shadow.unmap(iova, size, gone)).map_err(|error| refuse(&error))
    }

    /// Takes all mappings away.
    pub fn unmap_all(&self) {
        // It can't fail: there is no range to be wrong.
        let _ = self.take(|shadow, gone| Ok(shadow.clear(gone)));
    }

    fn take(
        &self,
        how: impl FnOnce(&mut Shadow, &mut dyn FnMut(&Mapping)) -> Result<u64, MapError>,
    ) -> Result<(), MapError> {
        let began = self.now_ns();
        let mut inner = self.lock();
        let Inner { shadow, follow, counts: window, .. } = &mut *inner;
        let live = shadow.len();
        let mut bytes = 0;
        let count = how(shadow, &mut |mapping| {
            bytes += mapping.size;
            follow.gone(mapping, began);
        })?;
        window.live_changes(live, began);
        window.counts.unmaps += count;
        window.counts.unmapped_bytes += bytes;
        window.counts.unmaps_in_vain += u64::from(count == 0);
        window.counts.shadow_ns += self.now_ns() - began;
        Ok(())
    }

    /// Forgets everything of a client that is gone; nothing is counted.
    pub fn forget(&self) {
        let mut inner = self.lock();
        let live = inner.shadow.len();
        inner.counts.live_changes(live, self.now_ns());
        inner.shadow.clear(|_| ());
        inner.files.clear();
        inner.follow.forget();
    }

    /// Reads memory.
    ///
    /// # Errors
    /// Where the device may not, or can't.
    pub fn read(&self, iova: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.lock().read(iova, buffer, |_| ())
    }

    /// Writes memory.
    ///
    /// # Errors
    /// Where the device may not, or can't.
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<(), Fault> {
        self.lock().write(iova, data, |_| ())
    }

    /// Reads the data of a request, whose buffers are noted in it.
    ///
    /// # Errors
    /// Where the device may not, or can't; what was read until then is in `buffer`.
    pub fn gather(
        &self,
        ranges: &[Range],
        buffer: &mut [u8],
        request: &mut Request,
    ) -> Result<(), Fault> {
        let mut rest = buffer;
        let mut exposed = None;
        for range in ranges {
            let (part, behind) = rest.split_at_mut(range.size as usize);
            self.lock().read(range.iova, part, |piece| {
                if piece.writable && request.owns(piece) {
                    exposed = Some(piece.iova);
                }
                request.uses(piece);
            })?;
            rest = behind;
        }
        if let Some(iova) = exposed {
            let counts = &mut self.lock().counts.counts;
            counts.exposed += 1;
            if counts.exposed_lines.len() < MAX_LINES {
                counts
                    .exposed_lines
                    .push(format!("{iova:#x}, which is read alone, may be written"));
            }
        }
        Ok(())
    }

    /// Writes the data of a request, whose buffers are noted in it.
    ///
    /// # Errors
    /// Where the device may not, or can't; what came before is written.
    pub fn scatter(
        &self,
        ranges: &[Range],
        data: &[u8],
        request: &mut Request,
    ) -> Result<(), Fault> {
        let mut rest = data;
        for range in ranges {
            let (part, behind) = rest.split_at(range.size as usize);
            self.lock().write(range.iova, part, |piece| request.uses(piece))?;
            rest = behind;
        }
        Ok(())
    }

    /// Counts an access for a command that a mapping did not allow.
    pub fn count_fault(&self, who: &str, fault: &Fault) {
        let counts = &mut self.lock().counts.counts;
        counts.faults += 1;
        if counts.fault_lines.len() < MAX_LINES {
            counts.fault_lines.push(format!("{who}: {fault}"));
        }
    }

    /// Notes that a queue is new: what is mapped now is not its requests' own.
    pub fn queue_created(&self, queue: u16) {
        let mut inner = self.lock();
        let newest = inner.shadow.newest();
        inner.follow.queue_created(queue, newest);
    }

    /// Notes that a request has arrived on an I/O queue.
    pub fn submitted(&self, queue: u16, identifier: u16) -> Request {
        let mut inner = self.lock();
        let Inner { shadow, files, follow, pieces, .. } = &mut *inner;
        follow.submitted(queue, identifier, shadow, |iova| {
            // A byte is proof enough, and it is the guest's: it is looked at and dropped.
            pieces.clear();
            shadow.resolve(iova, 1, Access::READ, pieces).is_ok()
                && transfer_in(files, pieces, &mut [0]).is_ok()
        })
    }

    /// Notes that the guest is about to learn that a request is finished.
    pub fn finished(&self, request: Request) {
        if request.is_followed() {
            let now = self.now_ns();
            let mut inner = self.lock();
            let Inner { shadow, follow, .. } = &mut *inner;
            follow.finished(request, shadow, now);
        }
    }

    /// Begins to count from zero.
    pub fn begin(&self) {
        let now = self.now_ns();
        let mut inner = self.lock();
        let live = inner.shadow.len() as u64;
        inner.counts = Window { began_ns: now, changed_ns: now, ..Window::default() };
        inner.counts.counts.live_before = live;
        inner.counts.counts.peak = live;
        inner.follow.begin();
        self.spent.all().into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }

    /// What was counted of mappings, accesses and buffers since it began.
    #[must_use]
    pub fn counted(&self) -> ProbeCounts {
        let now = self.now_ns();
        let mut inner = self.lock();
        let live = inner.shadow.len();
        let Inner { shadow, follow, counts: window, .. } = &mut *inner;
        window.live_changes(live, now);
        let elapsed = now.saturating_sub(window.began_ns);
        let [messages, socket_ns, command_ns, sleeps] =
            self.spent.all().map(|counter| counter.load(Ordering::Relaxed));
        ProbeCounts {
            messages,
            socket_ns: socket_ns.saturating_sub(window.counts.shadow_ns),
            command_ns,
            sleeps,
            live_after: live as u64,
            elapsed_ns: elapsed,
            mean_live: window.integral as f64 / elapsed.max(1) as f64,
            stale: follow.counted(shadow, now),
            ..window.counts.clone()
        }
    }

    /// What is mapped now.
    #[must_use]
    pub fn mappings(&self) -> Vec<Told> {
        self.lock().shadow.iter().map(told).collect()
    }

    /// Compares what is mapped with the guest's own tables; meanwhile nothing is mapped or unmapped.
    ///
    /// # Errors
    /// Where the tables make no sense, or nothing was ever mapped that tells where they are.
    pub fn compare(
        &self,
        root: u64,
        bus: u8,
        devfn: u8,
    ) -> Result<(Kind, Option<Coherence>), String> {
        let inner = self.lock();
        let ram = Ram::of(&inner.files).ok_or("the device was never given memory of the guest")?;
        // There is one virtual IOMMU: the request does not name it.
        let found = VIOMMUS[0]
            .walk(&ram, root, PciFunction { bus, devfn })
            .map_err(|error| error.to_string())?;
        let leaves = match found {
            FunctionTables::Shadowed(leaves) => leaves,
            FunctionTables::FirstStage => return Ok((Kind::FirstStage, None)),
            FunctionTables::PassThrough => return Ok((Kind::PassThrough, None)),
        };
        let tables: Vec<Told> =
            leaves.iter().map(|leaf| mapping_of_leaf(leaf, ram.bytes)).collect();
        let shadow: Vec<Told> = inner.shadow.iter().map(told).collect();
        let coherence = Coherence::of(TablesSource::Memory, &tables, &shadow, 1);
        Ok((Kind::SecondStage, Some(coherence)))
    }

    /// Looks at the mappings, while nothing changes.
    pub fn with_shadow<T>(&self, look: impl FnOnce(&Shadow) -> T) -> T {
        look(&self.lock().shadow)
    }

    /// Buffers of finished requests whose mapping is gone, the latest first: first address and
    /// bytes.
    #[must_use]
    pub fn lately_unmapped(&self) -> Vec<Range> {
        self.lock().follow.lately_unmapped().collect()
    }

    /// The mapping that was made last.
    #[must_use]
    pub fn newest(&self) -> MapId {
        self.lock().shadow.newest()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The number of a file; a new one is kept.
    fn file(&mut self, fd: OwnedFd, identity: (u64, u64)) -> Result<FileId, Errno> {
        let known = self.files.iter().position(|file| file.identity == identity);
        let index = known.unwrap_or(self.files.len());
        let id = FileId::new(index).ok_or(Errno::NFILE)?;
        if known.is_none() {
            self.files.push(MemoryFile { identity, file: File::from(fd) });
        }
        Ok(id)
    }

    fn read(
        &mut self,
        iova: u64,
        buffer: &mut [u8],
        seen: impl FnMut(&Piece),
    ) -> Result<(), Fault> {
        let size = buffer.len() as u64;
        let fault = |why| Fault { iova, size, write: false, why };
        self.resolve(iova, size, Access::READ, seen).map_err(|why| fault(why.into()))?;
        transfer_in(&self.files, &self.pieces, buffer).map_err(|why| fault(why.into()))
    }

    fn write(&mut self, iova: u64, data: &[u8], seen: impl FnMut(&Piece)) -> Result<(), Fault> {
        let size = data.len() as u64;
        let fault = |why| Fault { iova, size, write: true, why };
        self.resolve(iova, size, Access::WRITE, seen).map_err(|why| fault(why.into()))?;
        let mut rest = data;
        for (file, offset, size) in runs(&self.files, &self.pieces) {
            let (part, behind) = rest.split_at(size);
            file.write_all_at(part, offset).map_err(|why| fault(why.into()))?;
            rest = behind;
        }
        Ok(())
    }

    fn resolve(
        &mut self,
        iova: u64,
        size: u64,
        access: Access,
        seen: impl FnMut(&Piece),
    ) -> Result<(), Refusal> {
        self.pieces.clear();
        self.shadow.resolve(iova, size, access, &mut self.pieces)?;
        self.pieces.iter().for_each(seen);
        Ok(())
    }
}

fn told(mapping: Mapping) -> Told {
    Told {
        iova: mapping.iova,
        size: mapping.size,
        offset: mapping.offset,
        read: mapping.access.read,
        write: mapping.access.write,
    }
}

/// The guest's memory: of the files that mappings came with, the largest.
struct Ram<'a> {
    file: &'a File,
    bytes: u64,
}

impl<'a> Ram<'a> {
    fn of(files: &'a [MemoryFile]) -> Option<Self> {
        let sized = |file: &'a MemoryFile| {
            Some(Self { file: &file.file, bytes: file.file.metadata().ok()?.len() })
        };
        files.iter().filter_map(sized).max_by_key(|ram| ram.bytes)
    }
}

impl GuestPages for Ram<'_> {
    fn page(&self, address: u64) -> Option<[u64; 512]> {
        let mut bytes = [0; PAGE_BYTES as usize];
        self.file.read_exact_at(&mut bytes, ram_offset(address, self.bytes)?).ok()?;
        let (words, _) = bytes.as_chunks();
        Some(std::array::from_fn(|n| u64::from_le_bytes(words[n])))
    }
}

fn transfer_in(files: &[MemoryFile], pieces: &[Piece], buffer: &mut [u8]) -> std::io::Result<()> {
    let mut rest = buffer;
    for (file, offset, size) in runs(files, pieces) {
        let (part, behind) = rest.split_at_mut(size);
        file.read_exact_at(part, offset)?;
        rest = behind;
    }
    Ok(())
}

/// Pieces with those joined that continue each other in their file: one system call each.
fn runs<'a>(
    files: &'a [MemoryFile],
    pieces: &'a [Piece],
) -> impl Iterator<Item = (&'a File, u64, usize)> {
    pieces
        .chunk_by(|a, b| a.file == b.file && a.offset.checked_add(a.size) == Some(b.offset))
        .filter_map(|run| {
            let file = &files.get(run[0].file.index()?)?.file;
            Some((file, run[0].offset, run.iter().map(|piece| piece.size as usize).sum()))
        })
}

/// Device and inode of a file that a mapping comes with, which must be long enough for it.
fn identity(fd: &OwnedFd, map: &DmaMap) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    let end = map.offset.checked_add(map.size).ok_or(Errno::INVAL)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !regular || end > u64::try_from(stat.st_size).unwrap_or(0) {
        tracing::warn!(?map, size = stat.st_size, regular, "a mapping goes past its file");
        return Err(Errno::INVAL);
    }
    Ok((stat.st_dev, stat.st_ino))
}

fn refuse(error: &MapError) -> Errno {
    tracing::warn!("{error}");
    match error {
        MapError::Range { .. } | MapError::Split { .. } => Errno::INVAL,
        MapError::Overlap { .. } => Errno::EXIST,
    }
}
