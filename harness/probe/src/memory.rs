//! Memory of the guest, which the device accesses through its mappings alone.
//!
//! One lock guards mappings, files and tracked requests. So after the reply to an unmapping no access
//! through it is in progress, as with a physical IOMMU.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

use dmarig_model::{
    coherence::{self, Coherence, TablesSource, mapping_of_leaf, ram_offset},
    probe::{ProbeCounts, Tables},
    viommu::VIOMMUS,
};
use dmarig_viommu::tables::{FunctionTables, GuestPages, PAGE_BYTES, PciFunction, WalkError};
use rustix::{fs::FileType, io::Errno};
use zerocopy::{IntoBytes, little_endian::U64};

use crate::{
    counting::{MAX_LINES, Profile},
    protocol::DmaMap,
    range::Range,
    shadow::{Access, FileId, MapError, MapId, Mapping, Piece, Refusal, Shadow},
    stale::{StaleTracker, TrackedRequest},
};

/// The guest's memory behind its mappings.
#[derive(Debug)]
pub struct Memory {
    inner: Mutex<Inner>,
    start: Instant,
    profile: Profile,
}

/// The live mappings could not be compared with the guest's page tables.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// QEMU has not shared the guest's memory.
    #[error("the device was never given memory of the guest")]
    NoMemory,
    /// The page tables are invalid.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// An access that failed.
#[derive(Debug, thiserror::Error)]
#[error("{} of {size:#x} bytes at {iova:#x}: {reason}", if *.write { "write" } else { "read" })]
pub struct Fault {
    /// First address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it was a write.
    pub write: bool,
    /// The reason.
    pub reason: FaultKind,
}

/// Why an access failed.
#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    /// The mappings don't allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The file of the guest's memory could not be read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

#[derive(Debug, Default)]
struct Inner {
    shadow: Shadow,
    files: Vec<MemoryFile>,
    stale: StaleTracker,
    window: Window,
    pieces: Vec<Piece>,
}

/// A file of the guest's memory, known by device and inode: each mapping brings a descriptor of its
/// own for the same few files.
#[derive(Debug)]
struct MemoryFile {
    identity: (u64, u64),
    file: File,
}

/// Counts of mappings and accesses in one window.
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
    pub fn new(track_requests: bool) -> Self {
        let inner = Inner { stale: StaleTracker::new(track_requests), ..Inner::default() };
        Self { inner: Mutex::new(inner), start: Instant::now(), profile: Profile::default() }
    }

    /// The counters of the probe's own work.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Nanoseconds since this memory was made: the clock of its mappings.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes a mapping to memory in a file; without a file, the device can't access it.
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
        let window = &mut inner.window;
        window.live_changes(live, began);
        window.counts.maps += 1;
        window.counts.mapped_bytes += map.size;
        window.counts.peak = window.counts.peak.max(peak);
        window.counts.shadow_ns += self.now_ns() - began;
        Ok(())
    }

    /// Removes all mappings in a range, which may have none: QEMU removes whole address spaces by
    /// powers of two.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<(), Errno> {
        let removed = self.remove_mappings(|shadow, removed| shadow.unmap(iova, size, removed));
        removed.map_err(|error| refuse(&error))
    }

    /// Removes all mappings.
    pub fn unmap_all(&self) {
        // It can't fail: there is no range to be wrong.
        let _ = self.remove_mappings(|shadow, removed| Ok(shadow.clear(removed)));
    }

    fn remove_mappings(
        &self,
        remove: impl FnOnce(&mut Shadow, &mut dyn FnMut(&Mapping)) -> Result<u64, MapError>,
    ) -> Result<(), MapError> {
        let began = self.now_ns();
        let mut inner = self.lock();
        let Inner { shadow, stale, window, .. } = &mut *inner;
        let live = shadow.len();
        let mut bytes = 0;
        let count = remove(shadow, &mut |mapping| {
            bytes += mapping.size;
            stale.mapping_removed(mapping, began);
        })?;
        window.live_changes(live, began);
        window.counts.unmaps += count;
        window.counts.unmapped_bytes += bytes;
        window.counts.unmaps_in_vain += u64::from(count == 0);
        window.counts.shadow_ns += self.now_ns() - began;
        Ok(())
    }

    /// Discards everything of a client that disconnected; nothing is counted.
    pub fn clear(&self) {
        let mut inner = self.lock();
        let live = inner.shadow.len();
        inner.window.live_changes(live, self.now_ns());
        inner.shadow.clear(|_| ());
        inner.files.clear();
        inner.stale.clear();
    }

    /// Reads memory.
    ///
    /// # Errors
    /// [`Fault`]
    pub fn read(&self, iova: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        self.lock().read(iova, buffer, |_| ())
    }

    /// Writes memory.
    ///
    /// # Errors
    /// [`Fault`]
    pub fn write(&self, iova: u64, data: &[u8]) -> Result<(), Fault> {
        self.lock().write(iova, data, |_| ())
    }

    /// Reads the data of a request and records its mappings in `request`.
    ///
    /// # Errors
    /// [`Fault`]; the data before it is in `buffer`.
    pub fn gather(
        &self,
        ranges: &[Range],
        buffer: &mut [u8],
        request: &mut TrackedRequest,
    ) -> Result<(), Fault> {
        let mut rest = buffer;
        let mut exposed = None;
        for range in ranges {
            let (part, behind) = rest.split_at_mut(range.size as usize);
            self.lock().read(range.iova, part, |piece| {
                if piece.writable && request.owns(piece) {
                    exposed = Some(piece.iova);
                }
                request.add_mapping(piece);
            })?;
            rest = behind;
        }
        if let Some(iova) = exposed {
            let counts = &mut self.lock().window.counts;
            counts.exposed += 1;
            if counts.exposed_lines.len() < MAX_LINES {
                counts
                    .exposed_lines
                    .push(format!("{iova:#x}, which is read alone, may be written"));
            }
        }
        Ok(())
    }

    /// Writes the data of a request and records its mappings in `request`.
    ///
    /// # Errors
    /// [`Fault`]; the data before it is written.
    pub fn scatter(
        &self,
        ranges: &[Range],
        data: &[u8],
        request: &mut TrackedRequest,
    ) -> Result<(), Fault> {
        let mut rest = data;
        for range in ranges {
            let (part, behind) = rest.split_at(range.size as usize);
            self.lock().write(range.iova, part, |piece| request.add_mapping(piece))?;
            rest = behind;
        }
        Ok(())
    }

    /// Counts an access for a command that a mapping did not allow.
    pub fn count_fault(&self, who: &str, fault: &Fault) {
        let counts = &mut self.lock().window.counts;
        counts.faults += 1;
        if counts.fault_lines.len() < MAX_LINES {
            counts.fault_lines.push(format!("{who}: {fault}"));
        }
    }

    /// Records a new queue: its requests don't own what is mapped now.
    pub fn queue_created(&self, queue: u16) {
        let mut inner = self.lock();
        let newest = inner.shadow.newest();
        inner.stale.queue_created(queue, newest);
    }

    /// Starts to track a request that arrived on an I/O queue.
    pub fn request_submitted(&self, queue: u16, identifier: u16) -> TrackedRequest {
        let mut inner = self.lock();
        let Inner { shadow, files, stale, pieces, .. } = &mut *inner;
        stale.request_submitted(queue, identifier, shadow, |iova| {
            // One byte is proof enough. It is the guest's, so it is dropped.
            pieces.clear();
            shadow.resolve(iova, 1, Access::READ, pieces).is_ok()
                && read_pieces(files, pieces, &mut [0]).is_ok()
        })
    }

    /// Tracks the mappings of a request whose completion the guest is about to see.
    pub fn request_finished(&self, request: TrackedRequest) {
        if request.is_tracked() {
            let now = self.now_ns();
            let mut inner = self.lock();
            let Inner { shadow, stale, .. } = &mut *inner;
            stale.request_finished(request, shadow, now);
        }
    }

    /// Starts to count from zero.
    pub fn begin_window(&self) {
        let now = self.now_ns();
        let mut inner = self.lock();
        let live = inner.shadow.len() as u64;
        inner.window = Window { began_ns: now, changed_ns: now, ..Window::default() };
        inner.window.counts.live_before = live;
        inner.window.counts.peak = live;
        inner.stale.begin_window();
        self.profile.all().into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }

    /// The counts of mappings, accesses and requests in this window.
    #[must_use]
    pub fn counts(&self) -> ProbeCounts {
        let now = self.now_ns();
        let mut inner = self.lock();
        let live = inner.shadow.len();
        let Inner { shadow, stale, window, .. } = &mut *inner;
        window.live_changes(live, now);
        let elapsed = now.saturating_sub(window.began_ns);
        let [messages, socket_ns, command_ns, sleeps] =
            self.profile.all().map(|counter| counter.load(Ordering::Relaxed));
        ProbeCounts {
            messages,
            socket_ns: socket_ns.saturating_sub(window.counts.shadow_ns),
            command_ns,
            sleeps,
            live_after: live as u64,
            elapsed_ns: elapsed,
            mean_live: window.integral as f64 / elapsed.max(1) as f64,
            stale: stale.counts(shadow, now),
            ..window.counts.clone()
        }
    }

    /// The live mappings.
    #[must_use]
    pub fn mappings(&self) -> Vec<coherence::Mapping> {
        self.lock().shadow.iter().map(to_report).collect()
    }

    /// Compares the live mappings with the guest's page tables; meanwhile nothing is mapped or
    /// unmapped.
    ///
    /// # Errors
    /// [`CompareError`]
    pub fn compare(
        &self,
        root: u64,
        bus: u8,
        devfn: u8,
    ) -> Result<(Tables, Option<Coherence>), CompareError> {
        let inner = self.lock();
        let ram = Ram::largest(&inner.files).ok_or(CompareError::NoMemory)?;
        // There is one virtual IOMMU: the request does not name it.
        let found = VIOMMUS[0].walk(&ram, root, PciFunction { bus, devfn })?;
        let leaves = match found {
            FunctionTables::Shadowed(leaves) => leaves,
            FunctionTables::FirstStage => return Ok((Tables::FirstStage, None)),
            FunctionTables::PassThrough => return Ok((Tables::PassThrough, None)),
        };
        let tables: Vec<coherence::Mapping> =
            leaves.iter().map(|leaf| mapping_of_leaf(leaf, ram.bytes)).collect();
        let shadow: Vec<coherence::Mapping> = inner.shadow.iter().map(to_report).collect();
        let coherence = Coherence::of(TablesSource::Memory, &tables, &shadow, 1);
        Ok((Tables::SecondStage, Some(coherence)))
    }

    /// Reads the mappings, while nothing changes.
    pub fn with_shadow<T>(&self, read: impl FnOnce(&Shadow) -> T) -> T {
        read(&self.lock().shadow)
    }

    /// Ranges of finished requests that were unmapped, the latest first.
    #[must_use]
    pub fn recently_unmapped(&self) -> Vec<Range> {
        self.lock().stale.recently_unmapped().collect()
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
        let fault = |reason| Fault { iova, size, write: false, reason };
        self.resolve(iova, size, Access::READ, seen).map_err(|reason| fault(reason.into()))?;
        read_pieces(&self.files, &self.pieces, buffer).map_err(|reason| fault(reason.into()))
    }

    fn write(&mut self, iova: u64, data: &[u8], seen: impl FnMut(&Piece)) -> Result<(), Fault> {
        let size = data.len() as u64;
        let fault = |reason| Fault { iova, size, write: true, reason };
        self.resolve(iova, size, Access::WRITE, seen).map_err(|reason| fault(reason.into()))?;
        let mut rest = data;
        for (file, offset, size) in runs(&self.files, &self.pieces) {
            let (part, behind) = rest.split_at(size);
            file.write_all_at(part, offset).map_err(|reason| fault(reason.into()))?;
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

fn to_report(mapping: Mapping) -> coherence::Mapping {
    coherence::Mapping {
        iova: mapping.iova,
        size: mapping.size,
        offset: mapping.offset,
        read: mapping.access.read,
        write: mapping.access.write,
    }
}

/// The guest's memory: the largest of the files that mappings came with.
struct Ram<'a> {
    file: &'a File,
    bytes: u64,
}

impl<'a> Ram<'a> {
    fn largest(files: &'a [MemoryFile]) -> Option<Self> {
        let sized = |file: &'a MemoryFile| {
            Some(Self { file: &file.file, bytes: file.file.metadata().ok()?.len() })
        };
        files.iter().filter_map(sized).max_by_key(|ram| ram.bytes)
    }
}

impl GuestPages for Ram<'_> {
    fn page(&self, address: u64) -> Option<[u64; 512]> {
        let mut words = [U64::ZERO; PAGE_BYTES as usize / 8];
        let offset = ram_offset(address, self.bytes)?;
        self.file.read_exact_at(words.as_mut_bytes(), offset).ok()?;
        Some(words.map(U64::get))
    }
}

fn read_pieces(files: &[MemoryFile], pieces: &[Piece], buffer: &mut [u8]) -> std::io::Result<()> {
    let mut rest = buffer;
    for (file, offset, size) in runs(files, pieces) {
        let (part, behind) = rest.split_at_mut(size);
        file.read_exact_at(part, offset)?;
        rest = behind;
    }
    Ok(())
}

/// Joins pieces that continue each other in their file: one system call each.
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
