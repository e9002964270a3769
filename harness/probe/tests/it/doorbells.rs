//! Doorbells in the host's memory, as Linux's driver uses them: the real ones are rung only where
//! the controller has asked for it.

use std::time::Instant;

use crate::{
    client::{PATIENCE, u32s},
    driver::{Command, Done, Driver, ENTRIES, OK, PAGE, Pages, settings},
};

const READ: u8 = 2;
const CONFIGURE: u8 = 0x7c;

/// A driver whose doorbells are in memory.
struct Buffered {
    driver: Driver,
    shadow: Pages,
    events: Pages,
    /// How often a real doorbell was rung.
    rung: usize,
}

impl Buffered {
    fn new() -> Self {
        let mut driver = Driver::new(settings());
        // As many as make a tail and a head that memory does not know of.
        let page = driver.pages(1).iova;
        for identifier in 0..3 {
            assert_eq!(driver.io(Command::io(READ, identifier, 0, 1, [page, 0])).status, OK);
        }
        let (shadow, events) = (driver.pages(1), driver.pages(1));
        for pages in [shadow, events] {
            driver.client.set_ram(pages.offset, &[0x33; PAGE as usize]);
        }
        let configure = Command::admin(CONFIGURE, 0, [shadow.iova, events.iova], [0; 6]);
        assert_eq!(driver.admin(configure).status, OK);
        Self { driver, shadow, events, rung: 0 }
    }

    fn read(&self, pages: Pages, at: u64) -> u16 {
        let bytes = self.driver.client.ram(pages.offset + at, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    /// Writes a doorbell, and rings it as Linux's `nvme_dbbuf_update_and_check_event` would have it.
    fn write(&mut self, at: u64, value: u32) {
        let old = self.read(self.shadow, at);
        self.driver.client.set_ram(self.shadow.offset + at, &u32s(&[value]));
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let asked = self.read(self.events, at);
        let new = value as u16;
        if new.wrapping_sub(asked).wrapping_sub(1) < new.wrapping_sub(old) {
            self.driver.write(0x1000 + at, &u32s(&[value]));
            self.rung += 1;
        }
    }

    fn submit(&mut self, command: Command) {
        self.driver.put(1, command);
        self.write(8, self.driver.queues[1].tail);
    }

    /// Waits for a completion and leaves it where it is.
    fn peek(&mut self) -> Done {
        let began = Instant::now();
        loop {
            if let Some(done) = self.driver.poll(1) {
                return done;
            }
            assert!(began.elapsed() < PATIENCE, "no completion");
            std::thread::yield_now();
        }
    }

    fn wait(&mut self) -> Done {
        let done = self.peek();
        self.write(12, self.driver.queues[1].head);
        done
    }
}

#[test]
fn fetches_commands_with_and_without_a_register_write() {
    let mut buffered = Buffered::new();
    let page = buffered.driver.pages(1).iova;
    for round in 0..200u16 {
        let burst = 1 + round % 7;
        for identifier in 0..burst {
            buffered.submit(Command::io(READ, identifier, 0, 1, [page, 0]));
        }
        for identifier in 0..burst {
            let done = buffered.wait();
            assert_eq!((done.identifier, done.status), (identifier, OK));
        }
    }
    assert!(buffered.rung > 0, "a controller that sleeps must be woken");
    buffered.driver.client.quit();
}

#[test]
fn ignores_a_register_write_older_than_memory() {
    let mut buffered = Buffered::new();
    let page = buffered.driver.pages(1).iova;
    for identifier in 10..13 {
        buffered.submit(Command::io(READ, identifier, 0, 1, [page, 0]));
    }
    // Posted with the first of them, and on its way for long.
    buffered.driver.write(0x1008, &u32s(&[4]));
    buffered.driver.write(0x100c, &u32s(&[2]));
    for identifier in 10..13 {
        assert_eq!(buffered.wait().identifier, identifier);
    }
    buffered.submit(Command::io(READ, 13, 0, 1, [page, 0]));
    assert_eq!(buffered.wait().identifier, 13);
    assert_eq!(errors(&mut buffered.driver), 0);
    buffered.driver.client.quit();
}

#[test]
fn reports_an_invalid_value_once() {
    let mut buffered = Buffered::new();
    let page = buffered.driver.pages(1).iova;
    let event = Command { identifier: 100, ..Command::admin(12, 0, [0; 2], [0; 6]) };
    buffered.driver.submit(0, event);
    let shadow = buffered.shadow.offset;
    buffered.driver.client.set_ram(shadow + 8, &u32s(&[ENTRIES]));
    buffered.driver.write(0x1008, &u32s(&[3]));
    let told = buffered.driver.wait(0);
    assert_eq!((told.identifier, told.result), (100, 0x0001_0100));
    for identifier in 0..5 {
        buffered.submit(Command::io(READ, identifier, 0, 1, [page, 0]));
        // What it was is no value to count from: the first one may not be seen by itself.
        buffered.driver.write(0x1008, &u32s(&[0]));
        assert_eq!(buffered.wait().status, OK);
    }
    assert_eq!(errors(&mut buffered.driver), 1);
    buffered.driver.client.quit();
}

#[test]
fn asks_for_the_head_of_a_full_completion_queue() {
    let mut buffered = Buffered::new();
    let page = buffered.driver.pages(1).iova;
    for round in 0..2u16 {
        for at in 0..(ENTRIES as u16 - 1) {
            buffered.submit(Command::io(READ, round * 100 + at, 0, 1, [page, 0]));
        }
        if round == 0 {
            // The queue has no room left, and memory says nothing of that being over.
            buffered.driver.until_posted(1, u64::from(ENTRIES) - 1);
        }
    }
    let seen = (0..2 * (ENTRIES - 1)).map(|_| buffered.wait().identifier).collect::<Vec<_>>();
    let expected = (0..2).flat_map(|round| (0..15).map(move |at| round * 100 + at));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    buffered.driver.client.quit();
}

#[test]
fn requires_mapped_buffers_and_drops_them_on_reset() {
    let mut driver = Driver::new(settings());
    let pages = driver.pages(2);
    let page = pages.iova;
    let mut check = |prp, status| {
        assert_eq!(driver.admin(Command::admin(CONFIGURE, 0, prp, [0; 6])).status, status);
        // The real ones are as good as before.
        assert_eq!(driver.io(Command::io(READ, 1, 0, 1, [page, 0])).status, OK);
    };
    check([page + 8, page + PAGE], (0, 0x02));
    check([page, page + PAGE + 4], (0, 0x02));
    check([0x5000, page], (0, 0x04));
    check([page, 0x5000], (0, 0x04));
    let configure = Command::admin(CONFIGURE, 0, [page, page + PAGE], [0; 6]);
    assert_eq!(driver.admin(configure).status, OK);
    driver.write(0x14, &u32s(&[0]));
    driver.until(u32::MAX, 0);
    driver.start();
    driver.create_queue();
    driver.client.set_ram(pages.offset, &[0xff; PAGE as usize]);
    assert_eq!(driver.io(Command::io(READ, 1, 0, 1, [page, 0])).status, OK);
    // Taken away while they are used, they are as fatal as a queue.
    assert_eq!(driver.admin(configure).status, OK);
    driver.unmap(pages);
    driver.ring(1);
    driver.until(2, 2);
    driver.client.quit();
}

/// Entries of the error log.
fn errors(driver: &mut Driver) -> usize {
    let pages = driver.pages(1);
    let log = Command::admin(2, 0, [pages.iova, 0], [1 | 1023 << 16, 0, 0, 0, 0, 0]);
    assert_eq!(driver.admin(log).status, OK);
    let bytes = driver.client.ram(pages.offset, PAGE as usize);
    bytes.chunks(64).filter(|entry| entry[..8] != [0; 8]).count()
}
