//! All that the compiler can't check: the kernel reading and writing memory of ours while we run,
//! and system calls that no crate wraps. The only file with `unsafe` in it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    ptr::NonNull,
    slice,
};

use anyhow::{Context, Result, bail};
use dmarig_wire::Interface;
use io_uring::{IoUring, opcode, types::Fd};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// One request that the disk has answered.
#[derive(Debug)]
pub(crate) struct Completion {
    /// The slot it was in, which is free again.
    pub(crate) slot: usize,
    /// Bytes that were moved.
    pub(crate) result: io::Result<usize>,
}

/// Requests on one file, each in a slot with a buffer of its own that is fit for direct I/O.
#[derive(Debug)]
pub(crate) struct DirectQueue {
    backend: Backend,
    file: File,
    /// Which buffers are the kernel's at the moment.
    in_flight: Vec<bool>,
    buffers: Buffers,
}

#[derive(Debug)]
enum Backend {
    Uring(Box<Uring>),
    Aio(Aio),
    Sync(VecDeque<Completion>),
}

impl DirectQueue {
    /// A queue of so many slots through the first of the interfaces that this kernel has.
    ///
    /// # Errors
    /// Where it has none of them, or fails for another reason than not having one.
    pub(crate) fn open(
        file: File,
        depth: usize,
        block_size: usize,
        interfaces: &[Interface],
    ) -> Result<Self> {
        let buffers = Buffers::new(depth, block_size).context("can't map memory for buffers")?;
        let in_flight = vec![false; depth];
        for interface in interfaces {
            let backend = match interface {
                Interface::IoUring => Uring::new(depth).map(|ring| Backend::Uring(Box::new(ring))),
                Interface::Aio => Aio::new(depth).map(Backend::Aio),
                _ => Ok(Backend::Sync(VecDeque::new())),
            };
            match backend {
                Ok(backend) => return Ok(Self { backend, file, in_flight, buffers }),
                // Not built in, or forbidden (sysctl kernel.io_uring_disabled).
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
                Err(error) => return Err(error).context(format!("can't set {interface:?} up")),
            }
        }
        bail!("this kernel has none of {interfaces:?}")
    }

    /// What the queue goes through.
    pub(crate) fn interface(&self) -> Interface {
        match self.backend {
            Backend::Uring(_) => Interface::IoUring,
            Backend::Aio(_) => Interface::Aio,
            Backend::Sync(_) => Interface::Sync,
        }
    }

    /// How many slots there are.
    pub(crate) fn depth(&self) -> usize {
        self.in_flight.len()
    }

    /// The buffer of a slot.
    ///
    /// # Panics
    /// Where the slot is in flight: its buffer is the kernel's then.
    pub(crate) fn buffer(&mut self, slot: usize) -> &mut [u64] {
        assert!(!self.in_flight[slot], "slot {slot} is in flight");
        self.buffers.slice(slot)
    }

    /// Starts a request, at the latest with the next [`DirectQueue::wait`].
    ///
    /// # Panics
    /// Where the slot is in flight already.
    pub(crate) fn start(&mut self, slot: usize, write: bool, offset: u64) {
        assert!(!self.in_flight[slot], "slot {slot} is in flight");
        let size = self.buffers.size;
        match &mut self.backend {
            Backend::Uring(ring) => {
                let (fd, buffer) = (Fd(self.file.as_raw_fd()), self.buffers.pointer(slot));
                let entry = if write {
                    opcode::Write::new(fd, buffer, size as u32).offset(offset).build()
                } else {
                    opcode::Read::new(fd, buffer, size as u32).offset(offset).build()
                };
                // SAFETY: the buffer stays mapped (`Drop` leaks it rather than unmap it with
                // requests in flight) and is lent to nobody until the slot's completion clears
                // `in_flight`. The file is open as long as the queue is.
                let pushed = unsafe { ring.0.submission().push(&entry.user_data(slot as u64)) };
                pushed.expect("the ring has an entry for each slot");
            }
            Backend::Aio(aio) => {
                aio.pending.push(Iocb {
                    data: slot as u64,
                    opcode: u16::from(write),
                    fd: self.file.as_raw_fd() as u32,
                    buffer: self.buffers.pointer(slot) as u64,
                    size: size as u64,
                    offset: offset as i64,
                    ..Iocb::default()
                });
            }
            Backend::Sync(done) => {
                let bytes = self.buffers.bytes(slot);
                let result = if write {
                    self.file.write_at(bytes, offset)
                } else {
                    self.file.read_at(bytes, offset)
                };
                done.push_back(Completion { slot, result });
            }
        }
        self.in_flight[slot] = true;
    }

    /// Waits until at least one request that was started is done, and gives all that are.
    ///
    /// # Errors
    /// Where the interface itself fails.
    pub(crate) fn wait(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        match &mut self.backend {
            Backend::Uring(ring) => ring.wait(done)?,
            Backend::Aio(aio) => aio.wait(done)?,
            Backend::Sync(ready) => done.extend(ready.drain(..)),
        }
        for completion in done {
            self.in_flight[completion.slot] = false;
        }
        Ok(())
    }
}

impl Drop for DirectQueue {
    fn drop(&mut self) {
        if self.in_flight.contains(&true) {
            // The kernel may still write there.
            self.buffers.leak = true;
        }
    }
}

/// A buffer for each slot, in huge pages where the kernel has them: a buffer is then contiguous
/// in memory too. In how many pieces a device maps it would otherwise depend on which pages happen
/// to be free, and the number of mappings with it.
#[derive(Debug)]
struct Buffers {
    /// The whole mapping, which starts before the first buffer.
    mapping: NonNull<u8>,
    length: usize,
    start: NonNull<u8>,
    count: usize,
    size: usize,
    leak: bool,
}

// SAFETY: the mapping belongs to this value alone, and no thread owns a mapping.
unsafe impl Send for Buffers {}

impl Buffers {
    fn new(count: usize, size: usize) -> io::Result<Self> {
        const HUGE: usize = 2 << 20;
        assert!(size.is_multiple_of(4096), "buffers are made of pages");
        // Whole huge pages wherever the mapping starts. What isn't used takes no memory.
        let slots = (count * size).next_multiple_of(HUGE);
        let length = slots + HUGE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other.
        let mapping = unsafe { mmap_anonymous(anywhere, length, access, MapFlags::PRIVATE) }?;
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(ErrorKind::OutOfMemory)?;
        // SAFETY: less than a huge page further on, which is within the mapping.
        let start = unsafe { mapping.add(mapping.align_offset(HUGE)) };
        // SAFETY: the range is within the mapping, and the advice changes none of its contents.
        // A kernel without huge pages refuses it, which costs only what is said above.
        let _ = unsafe { madvise(start.as_ptr().cast(), slots, Advice::LinuxHugepage) };
        // Touched now, so that no page fault is part of a request's latency.
        // SAFETY: the range is mapped and nobody else knows of it yet.
        unsafe { start.write_bytes(0, count * size) };
        Ok(Self { mapping, length, start, count, size, leak: false })
    }

    fn pointer(&self, slot: usize) -> *mut u8 {
        assert!(slot < self.count, "slot {slot} of {}", self.count);
        // SAFETY: the slot was checked, so the offset is within the mapping.
        unsafe { self.start.as_ptr().add(slot * self.size) }
    }

    fn slice(&mut self, slot: usize) -> &mut [u64] {
        // SAFETY: the range is mapped, page-aligned and initialized (zeros at first); it is
        // borrowed from `self`, and callers don't ask for a slot that is the kernel's.
        unsafe { slice::from_raw_parts_mut(self.pointer(slot).cast(), self.size / 8) }
    }

    fn bytes(&mut self, slot: usize) -> &mut [u8] {
        // SAFETY: as in `slice`.
        unsafe { slice::from_raw_parts_mut(self.pointer(slot), self.size) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.leak {
            // SAFETY: the mapping is ours, and nothing borrows from it or writes to it any more.
            // It fails only for a bad range.
            let _ = unsafe { munmap(self.mapping.as_ptr().cast(), self.length) };
        }
    }
}

struct Uring(IoUring);

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Uring")
    }
}

impl Uring {
    fn new(depth: usize) -> io::Result<Self> {
        Ok(Self(IoUring::new(u32::try_from(depth).map_err(io::Error::other)?)?))
    }

    fn wait(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            match self.0.submit_and_wait(1) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Completions must be taken first; there are some.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => break,
                Err(error) => return Err(error),
            }
        }
        done.extend(self.0.completion().map(|entry| Completion {
            slot: entry.user_data() as usize,
            result: result(entry.result().into()),
        }));
        Ok(())
    }
}

fn result(code: i64) -> io::Result<usize> {
    usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code as i32))
}

/// `struct iocb` of <linux/aio_abi.h>; opcode 0 is `IOCB_CMD_PREAD`, 1 `IOCB_CMD_PWRITE`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    size: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    iocb: u64,
    result: i64,
    result2: i64,
}

/// An `io_setup` context.
#[derive(Debug)]
struct Aio {
    context: libc::c_ulong,
    pending: Vec<Iocb>,
    events: Vec<IoEvent>,
    submitted: usize,
}

impl Aio {
    fn new(depth: usize) -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the new context's number there, and nothing else.
        let code = unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut context) };
        checked(code)?;
        let events = vec![IoEvent::default(); depth];
        Ok(Self { context, pending: Vec::with_capacity(depth), events, submitted: 0 })
    }

    fn wait(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        while !self.pending.is_empty() {
            match self.submit() {
                Ok(count) => {
                    self.submitted += count;
                    self.pending.drain(..count);
                }
                // No room in the kernel until something is done.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.submitted > 0 => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let count = loop {
            match self.events() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.submitted -= count;
        done.extend(
            self.events[..count].iter().map(|event| Completion {
                slot: event.data as usize,
                result: result(event.result),
            }),
        );
        Ok(())
    }

    fn submit(&self) -> io::Result<usize> {
        let pointers: Vec<*const Iocb> = self.pending.iter().map(|iocb| &raw const *iocb).collect();
        let (count, list) = (pointers.len(), pointers.as_ptr());
        // SAFETY: the list holds `count` valid control blocks, which the kernel copies before it
        // returns. Their buffers are in flight, as in `DirectQueue::start`.
        checked(unsafe { libc::syscall(libc::SYS_io_submit, self.context, count, list) })
    }

    fn events(&mut self) -> io::Result<usize> {
        let (most, list) = (self.events.len(), self.events.as_mut_ptr());
        let forever = std::ptr::null::<libc::timespec>();
        // SAFETY: the kernel writes at most `most` events, for which the list has room.
        checked(unsafe {
            libc::syscall(libc::SYS_io_getevents, self.context, 1_usize, most, list, forever)
        })
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: the context is ours; this waits for what is in flight in it.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

/// Opens a counter of how often a tracepoint is passed on a CPU; it runs from now on, and a read
/// gives its eight bytes.
///
/// # Errors
/// The kernel's.
pub(crate) fn count_tracepoint(id: u64, cpu: u32) -> io::Result<File> {
    const PERF_TYPE_TRACEPOINT: u64 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    /// The first version of `struct perf_event_attr`, which every kernel takes.
    const SIZE: usize = 64;
    // The first word is `type` with `size` above it, the second `config`. All else is zero: no
    // samples, kernel included, running at once.
    let mut attributes = [0_u64; SIZE / 8];
    attributes[0] = PERF_TYPE_TRACEPOINT | (SIZE as u64) << 32;
    attributes[1] = id;
    // SAFETY: the kernel reads `SIZE` bytes of attributes, as the size in them says.
    let code = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            -1 as libc::pid_t,
            cpu as libc::c_int,
            -1 as libc::c_int,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = checked(code)?;
    // SAFETY: a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }.into())
}

/// Binds a packet socket to an interface, for frames of one EtherType.
///
/// # Errors
/// The kernel's.
pub(crate) fn bind_packet(socket: &OwnedFd, ethertype: u16, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of a valid address.
    let code = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    checked(code.into()).map(drop)
}

fn checked(code: libc::c_long) -> io::Result<usize> {
    usize::try_from(code).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_structures_have_the_kernels_sizes() {
        assert_eq!((size_of::<Iocb>(), size_of::<IoEvent>()), (64, 32));
    }

    #[test]
    #[should_panic(expected = "slot 1 is in flight")]
    fn does_not_lend_a_buffer_in_flight() {
        let file = File::open("/dev/zero").unwrap();
        let mut queue = DirectQueue::open(file, 2, 4096, &[Interface::Sync]).unwrap();
        queue.start(1, false, 0);
        queue.buffer(1);
    }
}
