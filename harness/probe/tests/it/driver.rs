//! A small NVMe driver over the client: it enables the controller, makes queues and waits for
//! interrupts.

use std::os::fd::OwnedFd;

use dmarig_model::probe::Settings;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::client::{Client, PATIENCE, u32s, u64s};

pub(crate) const PAGE: u64 = 4096;
/// Entries of each queue.
pub(crate) const ENTRIES: u32 = 16;
const BAR: u32 = 0;

/// What came of a command: result, and status as type and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) identifier: u16,
    pub(crate) result: u32,
    pub(crate) status: (u8, u8),
    pub(crate) head: u16,
}

pub(crate) const OK: (u8, u8) = (0, 0);

/// Pages of RAM that are mapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) iova: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) id: u16,
    pub(crate) submissions: Pages,
    pub(crate) completions: Pages,
    pub(crate) entries: u32,
    pub(crate) tail: u32,
    pub(crate) head: u32,
    phase: u16,
    interrupt: OwnedFd,
}

pub(crate) struct Driver {
    pub(crate) client: Client,
    pub(crate) queues: Vec<Queue>,
    next_iova: u64,
    next_offset: u64,
}

/// A command's dwords that tests set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Command {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) identifier: u16,
    pub(crate) namespace: u32,
    pub(crate) prp: [u64; 2],
    pub(crate) dwords: [u32; 6],
}

impl Command {
    /// A read (2) or write (1) of blocks.
    pub(crate) fn io(opcode: u8, identifier: u16, block: u64, blocks: u32, prp: [u64; 2]) -> Self {
        let dwords = [block as u32, (block >> 32) as u32, blocks - 1, 0, 0, 0];
        Self { opcode, flags: 0, identifier, namespace: 1, prp, dwords }
    }

    pub(crate) fn admin(opcode: u8, namespace: u32, prp: [u64; 2], dwords: [u32; 6]) -> Self {
        Self { opcode, flags: 0, identifier: 0x77, namespace, prp, dwords }
    }

    fn bytes(&self) -> Vec<u8> {
        let first =
            u32::from(self.opcode) | u32::from(self.flags) << 8 | u32::from(self.identifier) << 16;
        let head = u32s(&[first, self.namespace, 0, 0, 0, 0]);
        [head, u64s(&self.prp), u32s(&self.dwords)].concat()
    }
}

pub(crate) fn settings() -> Settings {
    Settings { disk_bytes: 16 << 20, queues: 2, vectors: 3, ..Settings::default() }
}

impl Driver {
    /// A controller with one I/O queue.
    pub(crate) fn new(settings: Settings) -> Self {
        let mut driver = Self::enabled(settings);
        driver.create_queue();
        driver
    }

    /// A controller with the admin queue alone.
    pub(crate) fn enabled(settings: Settings) -> Self {
        let vectors = u32::from(settings.vectors);
        let client = Client::new(settings);
        let mut driver =
            Self { client, queues: Vec::new(), next_iova: 0xffff_f000, next_offset: 0 };
        // QEMU enables all vectors with none bound first, then binds those in use.
        driver.client.set_irqs(0x24, 0, vectors, &[]).unwrap();
        driver.start();
        driver
    }

    /// Enables the controller with new admin queues.
    pub(crate) fn start(&mut self) {
        self.queues.clear();
        let admin = self.queue(0);
        self.write(0x24, &u32s(&[(ENTRIES - 1) << 16 | (ENTRIES - 1)]));
        self.write(0x28, &u64s(&[admin.submissions.iova]));
        self.write(0x30, &u64s(&[admin.completions.iova]));
        self.queues.push(admin);
        self.write(0x14, &u32s(&[4 << 20 | 6 << 16 | 1]));
        self.until(3, 1);
    }

    /// Waits until CSTS has these bits.
    pub(crate) fn until(&mut self, mask: u32, bits: u32) {
        let began = std::time::Instant::now();
        while self.status() & mask != bits {
            assert!(began.elapsed() < PATIENCE, "CSTS never becomes {bits:#x}");
            std::thread::yield_now();
        }
    }

    /// Waits until an entry of a completion queue's first pass is there, and leaves it.
    pub(crate) fn until_posted(&mut self, queue: usize, entry: u64) {
        let at = self.queues[queue].completions.offset + entry * 16 + 14;
        let began = std::time::Instant::now();
        while self.client.ram(at, 1)[0] & 1 == 0 {
            assert!(began.elapsed() < PATIENCE, "entry {entry} never comes");
            std::thread::yield_now();
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        self.client.post_region(BAR, offset, data);
    }

    /// CSTS.
    pub(crate) fn status(&mut self) -> u32 {
        let bytes = self.client.read_region(BAR, 0x1c, 4).unwrap();
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    /// Maps new RAM, page by page as an IOMMU does.
    pub(crate) fn pages(&mut self, count: u64) -> Pages {
        let pages = self.reserve(count);
        self.map(pages, 3);
        pages
    }

    /// RAM and addresses, not mapped.
    pub(crate) fn reserve(&mut self, count: u64) -> Pages {
        self.next_iova -= count * PAGE;
        let pages = Pages { iova: self.next_iova, offset: self.next_offset, size: count * PAGE };
        self.next_offset += count * PAGE;
        pages
    }

    pub(crate) fn map(&mut self, pages: Pages, flags: u32) {
        for at in (0..pages.size).step_by(PAGE as usize) {
            self.client.map(pages.iova + at, PAGE, pages.offset + at, flags).unwrap();
        }
    }

    pub(crate) fn unmap(&mut self, pages: Pages) {
        self.client.unmap(pages.iova, pages.size).unwrap();
    }

    fn queue(&mut self, id: u16) -> Queue {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let interrupt = rustix::event::eventfd(0, flags).unwrap();
        let theirs = interrupt.try_clone().unwrap();
        self.client.set_irqs(0x24, u32::from(id), 1, &[theirs]).unwrap();
        let (submissions, completions) = (self.pages(1), self.pages(1));
        self.client.set_ram(completions.offset, &[0; PAGE as usize]);
        let (entries, tail, head, phase) = (ENTRIES, 0, 0, 1);
        Queue { id, submissions, completions, entries, tail, head, phase, interrupt }
    }

    /// Makes the next I/O queue pair.
    pub(crate) fn create_queue(&mut self) {
        let id = self.queues.len() as u16;
        let queue = self.queue(id);
        let size = (ENTRIES - 1) << 16 | u32::from(id);
        let completion = [size, u32::from(id) << 16 | 3, 0, 0, 0, 0];
        let submission = [size, u32::from(id) << 16 | 1, 0, 0, 0, 0];
        let (sq, cq) = (queue.submissions.iova, queue.completions.iova);
        assert_eq!(self.admin(Command::admin(5, 0, [cq, 0], completion)).status, OK);
        assert_eq!(self.admin(Command::admin(1, 0, [sq, 0], submission)).status, OK);
        self.queues.push(queue);
    }

    /// Puts a command on a queue without ringing.
    pub(crate) fn put(&mut self, queue: usize, command: Command) {
        let queue = &mut self.queues[queue];
        let at = queue.submissions.offset + u64::from(queue.tail) * 64;
        self.client.set_ram(at, &command.bytes());
        queue.tail = (queue.tail + 1) % queue.entries;
    }

    pub(crate) fn ring(&mut self, queue: usize) {
        let (id, tail) = (u64::from(self.queues[queue].id), self.queues[queue].tail);
        self.write(0x1000 + 8 * id, &u32s(&[tail]));
    }

    pub(crate) fn submit(&mut self, queue: usize, command: Command) {
        self.put(queue, command);
        self.ring(queue);
    }

    /// A completion that is there, if any.
    pub(crate) fn poll(&mut self, queue: usize) -> Option<Done> {
        let queue = &mut self.queues[queue];
        let at = queue.completions.offset + u64::from(queue.head) * 16;
        let bytes = self.client.ram(at, 16);
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let status = u16_at(14);
        if status & 1 != queue.phase {
            return None;
        }
        queue.head = (queue.head + 1) % queue.entries;
        queue.phase ^= u16::from(queue.head == 0);
        assert_eq!(u16_at(10), queue.id);
        Some(Done {
            identifier: u16_at(12),
            result: u32::from(u16_at(0)) | u32::from(u16_at(2)) << 16,
            status: ((status >> 9 & 7) as u8, (status >> 1) as u8),
            head: u16_at(8),
        })
    }

    /// Waits for a completion and takes it.
    pub(crate) fn wait(&mut self, queue: usize) -> Done {
        loop {
            if let Some(done) = self.poll(queue) {
                let (id, head) = (u64::from(self.queues[queue].id), self.queues[queue].head);
                self.write(0x1004 + 8 * id, &u32s(&[head]));
                return done;
            }
            let interrupt = &self.queues[queue].interrupt;
            let deadline = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let mut ready = [PollFd::new(interrupt, PollFlags::IN)];
            assert_eq!(
                rustix::event::poll(&mut ready, Some(&deadline)).unwrap(),
                1,
                "no interrupt"
            );
            rustix::io::read(interrupt, &mut [0; 8]).unwrap();
        }
    }

    pub(crate) fn admin(&mut self, command: Command) -> Done {
        self.submit(0, command);
        self.wait(0)
    }

    pub(crate) fn io(&mut self, command: Command) -> Done {
        self.submit(1, command);
        self.wait(1)
    }
}
