//! A guest that does what no driver does gets the status that the specification names.

use dmarig_model::probe::{Request, Settings};

use crate::{
    client::{u32s, u64s},
    driver::{Command, Driver, ENTRIES, OK, PAGE, settings},
};

const READ: u8 = 2;

#[test]
fn completes_invalid_commands_with_their_status() {
    let mut driver = Driver::new(settings());
    driver.client.ask(&Request::Begin);
    let pages = driver.pages(2);
    let good = Command::io(READ, 5, 0, 1, [pages.iova, 0]);
    let mut check = |command, status| assert_eq!(driver.io(command).status, status, "{command:?}");
    check(good, OK);
    check(Command { opcode: 0x7f, ..good }, (0, 0x01));
    check(Command { flags: 0x40, ..good }, (0, 0x02));
    check(Command { flags: 0x01, ..good }, (0, 0x02));
    check(Command { namespace: 0, ..good }, (0, 0x0b));
    check(Command { namespace: 2, ..good }, (0, 0x0b));
    check(Command::io(READ, 5, 32767, 1, [pages.iova, 0]), OK);
    check(Command::io(READ, 5, 32767, 2, [pages.iova, 0]), (0, 0x80));
    check(Command::io(READ, 5, u64::MAX, 1, [pages.iova, 0]), (0, 0x80));
    check(Command::io(READ, 5, 0, 4096, [pages.iova, 0]), (0, 0x02));
    check(Command::io(READ, 5, 0, 1, [pages.iova + 1, 0]), (0, 0x13));
    check(Command::io(READ, 5, 0, 16, [pages.iova, pages.iova + 8]), (0, 0x13));
    check(Command::io(READ, 5, 0, 32, [pages.iova, pages.iova + 4]), (0, 0x13));
    // A list of zeros: page 0 isn't mapped.
    check(Command::io(READ, 5, 0, 32, [pages.iova, pages.iova + PAGE]), (0, 0x04));
    check(Command::io(READ, 5, 0, 1, [0x5000, 0]), (0, 0x04));
    check(Command::io(READ, 5, 0, 32, [pages.iova, 0x5000]), (0, 0x04));
    check(Command::io(READ, 5, 0, 8, [u64::MAX - 3, 0x5000]), (0, 0x04));
    let counts = driver.client.counts();
    assert_eq!(counts.failed["0/04"], 4);
    assert_eq!((counts.faults, counts.fault_lines.len()), (4, 4));
    assert!(
        counts.fault_lines[1].contains("write of 0x200 bytes at 0x5000: nothing is mapped"),
        "{counts:?}"
    );
    driver.client.quit();
}

#[test]
fn refuses_invalid_queues() {
    let mut driver = Driver::new(Settings { entries: 64, ..settings() });
    let page = driver.pages(1).iova;
    assert_eq!(driver.client.read_region(0, 0, 2).unwrap(), [63, 0], "CAP.MQES");
    let mut check = |opcode, prp, dword10, dword11, status| {
        let command = Command::admin(opcode, 0, [prp, 0], [dword10, dword11, 0, 0, 0, 0]);
        assert_eq!(driver.admin(command).status, status, "{command:?}");
    };
    let size = 15 << 16;
    // Completion queues.
    check(5, page, size, 3, (1, 0x01));
    check(5, page, size | 1, 3, (1, 0x01));
    check(5, page, size | 3, 3, (1, 0x01));
    check(5, page, 2, 3, (1, 0x02));
    check(5, page, 0xffff_0002, 3, (1, 0x02));
    check(5, page, 64 << 16 | 2, 3, (1, 0x02));
    check(5, page, size | 2, 2, (0, 0x02));
    check(5, page + 8, size | 2, 3, (0, 0x13));
    check(5, page, size | 2, 3 << 16 | 3, (1, 0x08));
    // Submission queues.
    check(1, page, size | 1, 1 << 16 | 1, (1, 0x01));
    check(1, page, size | 2, 2 << 16 | 1, (1, 0x00));
    check(1, page, size | 2, 1, (1, 0x01));
    check(1, page, size | 2, 9 << 16 | 1, (1, 0x01));
    // Deletion.
    check(4, 0, 0, 0, (1, 0x01));
    check(4, 0, 2, 0, (1, 0x01));
    check(0, 0, 7, 0, (1, 0x01));
    check(4, 0, 1, 0, (1, 0x0c));
    check(0, 0, 1, 0, OK);
    check(4, 0, 1, 0, OK);
    // The rest of the admin commands.
    check(0x7f, 0, 0, 0, (0, 0x01));
    check(2, page, 0x7f, 0, (1, 0x09));
    check(9, 0, 1 << 31 | 6, 1, (1, 0x0d));
    driver.client.quit();
}

#[test]
fn reports_invalid_doorbells_by_events() {
    let mut driver = Driver::new(settings());
    let pages = driver.pages(1);
    let mut requests: Vec<u16> = Vec::new();
    for identifier in 100..105 {
        driver.submit(0, Command { identifier, ..Command::admin(12, 0, [0; 2], [0; 6]) });
        requests.push(identifier);
    }
    let full = driver.wait(0);
    assert_eq!((full.identifier, full.status), (104, (1, 0x05)), "four wait");
    driver.write(0x1008, &u32s(&[ENTRIES]));
    let event = driver.wait(0);
    assert_eq!((event.identifier, event.result), (100, 0x0001_0100), "a value that can't be");
    // Another one waits until the log page was read.
    driver.write(0x1ff0, &u32s(&[1]));
    let log = Command::admin(2, 0, [pages.iova, 0], [1 | 63 << 16, 0, 0, 0, 0, 0]);
    let done = [driver.admin(log), driver.wait(0)];
    assert_eq!((done[0].identifier, done[0].status), (0x77, OK));
    assert_eq!((done[1].identifier, done[1].result), (101, 0x0001_0000), "a doorbell that isn't");
    assert_eq!(driver.client.ram(pages.offset + 64 + 8, 2), [1, 0], "the first one's queue");
    // A completion that never was can't be taken.
    driver.write(0x100c, &u32s(&[3]));
    assert_eq!(driver.io(Command::io(READ, 1, 0, 1, [pages.iova, 0])).status, OK);
    let abort = Command::admin(8, 0, [0; 2], [102 << 16, 0, 0, 0, 0, 0]);
    driver.submit(0, abort);
    let done = [driver.wait(0), driver.wait(0)];
    assert_eq!((done[0].identifier, done[0].status), (102, (0, 0x07)));
    assert_eq!(done[1].result, 0, "aborted");
    driver.client.quit();
}

#[test]
fn aborts_a_slow_command() {
    let mut driver = Driver::new(Settings { latency_us: 60_000_000, ..settings() });
    let pages = driver.pages(1);
    driver.submit(1, Command::io(READ, 9, 0, 1, [pages.iova, 0]));
    driver.submit(1, Command::io(READ, 9, 0, 1, [pages.iova, 0]));
    let conflict = driver.wait(1);
    assert_eq!((conflict.identifier, conflict.status), (9, (0, 0x03)), "in use");
    let abort =
        |identifier: u32| Command::admin(8, 0, [0; 2], [1 | identifier << 16, 0, 0, 0, 0, 0]);
    assert_eq!(driver.admin(abort(8)).result, 1, "there is none");
    assert_eq!(driver.admin(abort(9)).result, 0);
    assert_eq!(driver.wait(1).status, (0, 0x07));
    driver.submit(1, Command::io(READ, 4, 0, 1, [pages.iova, 0]));
    let delete = Command::admin(0, 0, [0; 2], [1, 0, 0, 0, 0, 0]);
    // The doorbells of both queues may be seen at once, so that the command is never fetched.
    assert_eq!(driver.admin(delete).status, OK);
    driver.client.quit();
}

#[test]
fn fails_on_an_unmapped_queue_until_reset() {
    let mut driver = Driver::new(settings());
    let queue = driver.queues[1].submissions;
    driver.unmap(queue);
    driver.submit(1, Command::io(READ, 1, 0, 1, [0; 2]));
    driver.until(2, 2);
    driver.write(0x14, &u32s(&[0]));
    driver.until(u32::MAX, 0);
    driver.start();
    driver.create_queue();
    let pages = driver.pages(1);
    assert_eq!(driver.io(Command::io(READ, 1, 0, 1, [pages.iova, 0])).status, OK);
    // A shutdown is done at once.
    driver.write(0x14, &u32s(&[4 << 20 | 6 << 16 | 1 << 14 | 1]));
    driver.until(0xc, 8);
    driver.client.quit();
}

#[test]
fn refuses_to_enable_what_it_does_not_support() {
    let mut driver = Driver::enabled(settings());
    for cc in [0x0046_0011, 0x0046_0081, 0x0046_0801] {
        driver.write(0x14, &u32s(&[0]));
        driver.write(0x14, &u32s(&[cc]));
        driver.until(3, 2);
    }
    // Nothing is done while it has failed, whatever is rung.
    driver.write(0x1000, &u64s(&[5]));
    driver.ring(0);
    assert_eq!(driver.status() & 3, 2);
    driver.client.quit();
}

#[test]
fn keeps_completions_while_their_queue_is_full() {
    let mut driver = Driver::new(settings());
    let pages = driver.pages(1);
    for round in 0..2u16 {
        for at in 0..(ENTRIES as u16 - 1) {
            let identifier = round * 100 + at;
            driver.put(1, Command::io(READ, identifier, 0, 1, [pages.iova, 0]));
        }
        driver.ring(1);
        // The queue is full, and nobody looks at it until the next ones have been rung for.
        driver.until_posted(1, u64::from(ENTRIES) - 2);
    }
    let seen = (0..2 * (ENTRIES - 1)).map(|_| driver.wait(1).identifier);
    let expected = (0..2).flat_map(|round| (0..15).map(move |at| round * 100 + at));
    assert_eq!(seen.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    driver.client.quit();
}
