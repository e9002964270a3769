//! Registers, doorbells and commands of a hostile guest: never a panic, never an access outside of
//! the mappings, and never more work than there are commands.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Arc, Mutex},
};

use dmarig_model::probe::Settings;
use dmarig_probe::{
    irqs::Interrupts,
    memory::Memory,
    nvme::{Controller, Registers, Tally},
    protocol::DmaMap,
};
use rustix::fs::MemfdFlags;

const PAGE: u64 = 4096;
/// Pages of RAM; page N is mapped at N + 16 pages, so that low addresses are not.
const PAGES: u64 = 16;
const BASE: u64 = 16 * PAGE;
/// Pages of admin and I/O queues.
const QUEUES: [u64; 4] = [BASE, BASE + PAGE, BASE + 2 * PAGE, BASE + 3 * PAGE];

struct Bench {
    ram: File,
    memory: Arc<Memory>,
    registers: Arc<Registers>,
    controller: Controller,
    tails: [u32; 2],
}

/// Does what the bytes say.
pub(crate) fn check(bytes: &[u8]) {
    let mut bench = Bench::new(bytes.first().copied().unwrap_or_default());
    bench.map();
    bench.start();
    for step in bytes.chunks(24) {
        let mut padded = [0; 24];
        padded[..step.len()].copy_from_slice(step);
        bench.step(&padded);
    }
    bench.settle();
    // However it was treated, it comes back.
    bench.registers.write(0x14, &[0; 4]);
    bench.map();
    bench.settle();
    bench.start();
    let mut csts = [0; 4];
    bench.registers.read(0x1c, &mut csts);
    assert_eq!(csts[0] & 3, 1, "ready and not failed");
}

impl Bench {
    fn new(knobs: u8) -> Self {
        let ram = File::from(rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap());
        ram.set_len(PAGES * PAGE).unwrap();
        let memory = Arc::new(Memory::new(true));
        let settings = Settings {
            disk_bytes: 1 << 20,
            queues: 2,
            vectors: 3,
            hold_back: u32::from(knobs % 5),
            host_memory_bytes: u64::from(knobs % 3) * PAGE,
            ..Settings::default()
        };
        let registers = Arc::new(Registers::new(settings.queues, settings.entries));
        let controller = Controller::new(
            settings,
            "FUZZ".to_owned(),
            Arc::clone(&registers),
            Arc::clone(&memory),
            Arc::new(Interrupts::new(3)),
            Arc::new(Mutex::new(Tally::default())),
        );
        Self { ram, memory, registers, controller, tails: [0; 2] }
    }

    fn map(&self) {
        self.memory.unmap_all();
        for page in 0..PAGES {
            let map = DmaMap {
                read: true,
                // A few are for reading alone.
                write: page < 4 || page % 5 != 0,
                offset: page * PAGE,
                iova: BASE + page * PAGE,
                size: PAGE,
            };
            self.memory.map(&map, Some(OwnedFd::from(self.ram.try_clone().unwrap()))).unwrap();
        }
    }

    /// Enables the controller and makes one pair of I/O queues.
    fn start(&mut self) {
        self.tails = [0; 2];
        self.registers.write(0x24, &0x000f_000fu32.to_le_bytes());
        self.registers.write(0x28, &QUEUES[0].to_le_bytes());
        self.registers.write(0x30, &QUEUES[1].to_le_bytes());
        self.registers.write(0x14, &0x0046_0001u32.to_le_bytes());
        self.settle();
        self.put(0, [5, 0, 0, QUEUES[3] as u32, 0, 0xf_0001, 0x0001_0003, 0]);
        self.put(0, [1, 0, 0, QUEUES[2] as u32, 0, 0xf_0001, 0x0001_0001, 0]);
    }

    fn step(&mut self, bytes: &[u8; 24]) {
        let mut words = bytes[4..].as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or_default();
        match bytes[0] % 8 {
            // A register or doorbell.
            0 => {
                let offset =
                    [0x14, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x0c, 0x20][usize::from(bytes[1] % 8)];
                self.registers.write(offset, &word().to_le_bytes());
            }
            1 => self
                .registers
                .write(0x1000 + 4 * u64::from(bytes[1] % 8), &(word() % 20).to_le_bytes()),
            // Anything anywhere in memory: PRP lists, for example.
            2 => {
                let at = (u64::from(word()) % (PAGES * PAGE - 16)) & !7;
                self.ram.write_all_at(&bytes[8..], at).unwrap();
            }
            3 => {
                let page = u64::from(bytes[1]) % PAGES;
                // It may be unmapped already.
                let _ = self.memory.unmap(BASE + page * PAGE, PAGE);
            }
            // Commands: admin, I/O; addresses are near those that exist.
            4 => self.command(0, bytes),
            _ => self.command(1, bytes),
        }
        self.settle();
    }

    fn command(&mut self, queue: usize, bytes: &[u8; 24]) {
        // Few are beyond 16: doorbells in memory.
        let opcode = if bytes[1] % 16 == 15 { 0x7c } else { u32::from(bytes[1] % 16) };
        let opcode = opcode | u32::from(bytes[2] & 0xc3) << 8;
        let short = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let near = |at: usize| short(at) << 2;
        self.put(
            queue,
            [
                opcode | short(4) << 16,
                u32::from(bytes[3] % 3),
                near(6),
                near(8),
                short(10) % 2048,
                short(12) | short(14) << 16,
                short(16) | short(18) << 16,
                (short(20) % 600) | (short(22) << 16),
            ],
        );
    }

    /// Puts a command on a queue and rings: first dword, namespace, PRP 2, PRP 1, dwords 10 to 13
    /// (what comes first of them are 13 and 10).
    fn put(&mut self, queue: usize, fields: [u32; 8]) {
        let [first, namespace, prp2, prp1, dword13, dword10, dword11, dword12] = fields;
        let dwords = [
            first, namespace, 0, 0, 0, 0, prp1, 0, prp2, 0, dword10, dword11, dword12, dword13, 0,
            1,
        ];
        let bytes: Vec<u8> = dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect();
        let tail = &mut self.tails[queue];
        let at = 2 * queue as u64 * PAGE + u64::from(*tail) * 64;
        self.ram.write_all_at(&bytes, at).unwrap();
        *tail = (*tail + 1) % 16;
        self.registers.write(0x1000 + 8 * queue as u64, &tail.to_le_bytes());
        self.settle();
    }

    fn settle(&mut self) {
        // Two full queues are 30 commands, and each turn carries out at least one.
        for _ in 0..64 {
            if !self.controller.step() {
                return;
            }
        }
        panic!("it comes to no end");
    }
}
