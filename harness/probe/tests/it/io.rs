//! A guest's driver does its work.

use dmarig_model::probe::{Request, Settings};
use dmarig_pattern::Stamp;

use crate::driver::{Command, Driver, OK, PAGE, Pages, settings};

const READ: u8 = 2;
const WRITE: u8 = 1;

fn stamped(stamp: Stamp, address: u64, bytes: u64) -> Vec<u8> {
    let mut words = vec![0; bytes as usize / 8];
    stamp.fill(&mut words, address);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Writes through some pages and reads back through others.
fn there_and_back(driver: &mut Driver, from: Pages, to: Pages, prps: [[u64; 2]; 2], bytes: u64) {
    let data = stamped(Stamp { seed: 3, generation: 9 }, 8 * PAGE, bytes);
    driver.client.set_ram(from.offset, &data);
    let blocks = (bytes / 512) as u32;
    assert_eq!(driver.io(Command::io(WRITE, 1, 64, blocks, prps[0])).status, OK);
    assert_eq!(driver.io(Command::io(READ, 2, 64, blocks, prps[1])).status, OK);
    assert_eq!(driver.client.ram(to.offset, bytes as usize), data);
}

#[test]
fn reads_back_writes_of_one_page_two_pages_and_a_list() {
    let mut driver = Driver::new(settings());
    driver.client.ask(&Request::Begin);
    let (from, to) = (driver.pages(20), driver.pages(20));
    let lists = driver.pages(2);
    let pair = |pages: Pages| [pages.iova, pages.iova + PAGE];
    there_and_back(&mut driver, from, to, [pair(from), pair(to)], 512);
    there_and_back(&mut driver, from, to, [pair(from), pair(to)], 2 * PAGE);
    for (list, pages) in [from, to].into_iter().enumerate() {
        let entries = (1..20).flat_map(|page| (pages.iova + page * PAGE).to_le_bytes());
        driver.client.set_ram(lists.offset + list as u64 * PAGE, &entries.collect::<Vec<_>>());
    }
    let prps = [[from.iova, lists.iova], [to.iova, lists.iova + PAGE]];
    there_and_back(&mut driver, from, to, prps, 20 * PAGE);
    let counts = driver.client.counts();
    assert_eq!(counts.commands["write"], 3);
    assert_eq!(
        (counts.to_guest_bytes, counts.from_guest_bytes),
        (512 + 22 * PAGE, 512 + 22 * PAGE)
    );
    assert_eq!((counts.corrupt, counts.faults, counts.failed.len()), (0, 0, 0), "{counts:?}");
    driver.client.quit();
}

#[test]
fn follows_a_prp_list_into_another_page() {
    let mut driver = Driver::new(settings());
    let (from, to, lists) = (driver.pages(8), driver.pages(8), driver.pages(4));
    for (at, pages) in [(0, from), (2, to)] {
        // Two entries fit at the end of the first page: data, and where the list goes on.
        let first = [pages.iova + PAGE, lists.iova + (at + 1) * PAGE];
        let rest: Vec<u64> = (2..8).map(|page| pages.iova + page * PAGE).collect();
        let bytes =
            |entries: &[u64]| entries.iter().flat_map(|e| e.to_le_bytes()).collect::<Vec<_>>();
        driver.client.set_ram(lists.offset + (at + 1) * PAGE - 16, &bytes(&first));
        driver.client.set_ram(lists.offset + (at + 1) * PAGE, &bytes(&rest));
    }
    let list = |at: u64| lists.iova + (at + 1) * PAGE - 16;
    let prps = [[from.iova, list(0)], [to.iova, list(2)]];
    there_and_back(&mut driver, from, to, prps, 8 * PAGE);
    driver.client.quit();
}

#[test]
fn reports_a_writable_mapping_of_a_write_command() {
    let mut driver = Driver::new(settings());
    driver.client.ask(&Request::Begin);
    let kept = driver.pages(1);
    assert_eq!(driver.io(Command::io(READ, 1, 0, 1, [kept.iova, 0])).status, OK);
    // Not this command's own: nobody knows what else it is for.
    assert_eq!(driver.io(Command::io(WRITE, 1, 0, 1, [kept.iova, 0])).status, OK);
    assert_eq!(driver.client.counts().exposed, 0);
    let own = driver.pages(1);
    assert_eq!(driver.io(Command::io(WRITE, 1, 0, 1, [own.iova, 0])).status, OK);
    let counts = driver.client.counts();
    assert_eq!((counts.exposed, counts.exposed_lines.len()), (1, 1), "{counts:?}");
    assert!(counts.exposed_lines[0].contains(&format!("{:#x}", own.iova)), "{counts:?}");
    driver.client.quit();
}

#[test]
fn reports_corrupt_data() {
    let mut driver = Driver::new(settings());
    driver.client.ask(&Request::Begin);
    let pages = driver.pages(1);
    let mut data = stamped(Stamp { seed: 3, generation: 9 }, 0, PAGE);
    data[777] ^= 4;
    driver.client.set_ram(pages.offset, &data);
    assert_eq!(driver.io(Command::io(WRITE, 1, 0, 8, [pages.iova, 0])).status, OK);
    // In the wrong place all eight are wrong.
    assert_eq!(driver.io(Command::io(WRITE, 1, 8, 8, [pages.iova, 0])).status, OK);
    let counts = driver.client.counts();
    assert_eq!(counts.corrupt, 9);
    assert!(counts.corrupt_lines[0].contains("byte 265 of the sector at 0x200"), "{counts:?}");
    assert!(counts.corrupt_lines[1].contains("address 0x0"), "{counts:?}");
    assert_eq!(counts.corrupt_lines.len(), 8);
    driver.client.quit();
}

#[test]
fn zeroed_and_deallocated_blocks_read_as_zeros() {
    let mut driver = Driver::new(settings());
    let pages = driver.pages(4);
    driver.client.set_ram(pages.offset, &[7; 4 * PAGE as usize]);
    let two = [pages.iova, pages.iova + PAGE];
    assert_eq!(driver.io(Command::io(WRITE, 1, 0, 16, two)).status, OK);
    assert_eq!(driver.io(Command::io(8, 1, 3, 2, [0; 2])).status, OK);
    // Two ranges: block 8 and 9, block 15.
    let ranges = [0u32, 2, 8, 0, 0, 1, 15, 0].iter().flat_map(|word| word.to_le_bytes());
    driver.client.set_ram(pages.offset + 2 * PAGE, &ranges.collect::<Vec<_>>());
    let list = pages.iova + 2 * PAGE;
    let manage = Command { dwords: [1, 4, 0, 0, 0, 0], ..Command::io(9, 1, 0, 1, [list, 0]) };
    assert_eq!(driver.io(manage).status, OK);
    assert_eq!(driver.io(Command::io(0, 1, 0, 1, [0; 2])).status, OK, "flush");
    assert_eq!(driver.io(Command::io(READ, 1, 0, 16, two)).status, OK);
    let data = driver.client.ram(pages.offset, 8192);
    let zeros: Vec<usize> = (0..16).filter(|block| data[block * 512] == 0).collect();
    assert_eq!(zeros, [3, 4, 8, 9, 15]);
    driver.client.quit();
}

#[test]
fn holds_completions_back_until_there_are_enough() {
    let mut driver = Driver::new(Settings { hold_back: 4, ..settings() });
    let pages = driver.pages(1);
    for identifier in 0..4 {
        driver.put(1, Command::io(READ, identifier, 0, 1, [pages.iova, 0]));
    }
    driver.ring(1);
    let done: Vec<_> = (0..4).map(|_| driver.wait(1)).collect();
    assert!(done.iter().all(|done| done.status == OK && done.head == 4), "{done:?}");
    // Alone it goes at once: nothing else is under way.
    assert_eq!(driver.io(Command::io(READ, 9, 0, 1, [pages.iova, 0])).identifier, 9);
    driver.client.quit();
}

#[test]
fn delays_completions_by_the_latency() {
    let mut driver = Driver::new(Settings { latency_us: 2000, ..settings() });
    let pages = driver.pages(1);
    let began = std::time::Instant::now();
    for identifier in 0..3 {
        let done = driver.io(Command::io(READ, identifier, 0, 1, [pages.iova, 0]));
        assert_eq!(done.identifier, identifier);
    }
    assert!(began.elapsed().as_micros() >= 6000);
    driver.client.quit();
}

#[test]
fn identifies_controller_and_namespace() {
    let mut driver = Driver::new(Settings { host_memory_bytes: 16 * PAGE, ..settings() });
    let pages = driver.pages(2);
    let mut identify = |namespace, what| {
        let command = Command::admin(6, namespace, [pages.iova, 0], [what, 0, 0, 0, 0, 0]);
        let status = driver.admin(command).status;
        (status, driver.client.ram(pages.offset, PAGE as usize))
    };
    let (status, controller) = identify(0, 1);
    assert_eq!((status, &controller[512..514]), (OK, &[0x66, 0x44][..]));
    assert_eq!(controller[272..280], [16, 0, 0, 0, 16, 0, 0, 0]);
    let (status, namespace) = identify(1, 0);
    assert_eq!((status, &namespace[..8], namespace[130]), (OK, &(32768u64.to_le_bytes())[..], 9));
    let (status, list) = identify(0, 2);
    assert_eq!((status, &list[..8]), (OK, &[1, 0, 0, 0, 0, 0, 0, 0][..]));
    assert_eq!(identify(1, 3).1[..2], [3, 16]);
    assert_eq!(identify(2, 0).0, (0, 0x0b));
    assert_eq!(identify(0, 0x55).0, (0, 0x02));
    for (page, size) in [(1u32, 64u32), (2, 512), (3, 512), (4, 4096), (5, 4096)] {
        let dwords = [page | (size / 4 - 1) << 16, 0, 0, 0, 0, 0];
        assert_eq!(driver.admin(Command::admin(2, 0, [pages.iova, 0], dwords)).status, OK);
    }
    driver.client.quit();
}

#[test]
fn keeps_features_and_grants_queues() {
    let mut driver = Driver::enabled(settings());
    let mut feature = |opcode, number, value| {
        driver.admin(Command::admin(opcode, 0, [0; 2], [number, value, 0, 0, 0, 0]))
    };
    assert_eq!(feature(9, 7, 0x000f_000f).result, 0x0001_0001);
    assert_eq!(feature(10, 7, 0).result, 0x0001_0001);
    assert_eq!(feature(9, 7, 0xffff).status, (0, 0x02));
    assert_eq!(feature(9, 0x0b, 0x100).status, OK);
    assert_eq!(feature(10, 0x0b, 0).result, 0x100);
    assert_eq!(feature(10, 6, 0).result, 1, "a volatile write cache");
    assert_eq!(feature(9, 9, 7).status, (0, 0x02), "no such vector");
    assert_eq!(feature(9, 0x55, 7).status, (0, 0x02));
    driver.create_queue();
    let queues = Command::admin(9, 0, [0; 2], [7, 0, 0, 0, 0, 0]);
    assert_eq!(driver.admin(queues).status, (0, 0x0c), "too late");
    driver.client.quit();
}

#[test]
fn accepts_only_a_complete_host_memory_buffer() {
    let mut driver = Driver::enabled(Settings { host_memory_bytes: 4 * PAGE, ..settings() });
    let (list, buffer) = (driver.pages(1), driver.pages(4));
    let entries = [u64::from(buffer.iova as u32), 2, buffer.iova + 2 * PAGE, 2];
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    driver.client.set_ram(list.offset, &bytes);
    let mut set = |enable, pages, count| {
        let (low, high) = (list.iova as u32, (list.iova >> 32) as u32);
        let dwords = [0x0d, enable, pages, low, high, count];
        driver.admin(Command::admin(9, 0, [0; 2], dwords)).status
    };
    assert_eq!(set(1, 3, 2), (0, 0x02), "too little");
    assert_eq!(set(1, 4, 1), (0, 0x02), "the list has less than it says");
    assert_eq!(set(1, 4, 2), OK);
    assert_eq!(set(1, 4, 2), (0, 0x0c), "there is one");
    assert_eq!(set(0, 0, 0), OK);
    assert_eq!(set(1, 4, 2), OK);
    driver.client.quit();
}
