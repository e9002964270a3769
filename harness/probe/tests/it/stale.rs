//! Buffers of finished requests: no false alarm on a strict kernel, and no leak that isn't found.

use dmarig_model::probe::{Request, Settings, Stale};

use crate::driver::{Command, Driver, OK, PAGE, Pages, settings};

const READ: u8 = 2;

struct Kernel {
    driver: Driver,
    buffers: Vec<Pages>,
}

/// When the kernel takes a request's mapping away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Unmap {
    /// Before it uses the tag again.
    Strict,
    /// After so many requests, all at once.
    Batch(usize),
    Never,
}

impl Kernel {
    fn new() -> Self {
        let mut driver = Driver::new(settings());
        // What a driver has before it does I/O: pools of pages for lists, and the like.
        driver.pages(8);
        let buffers = (0..4).map(|_| driver.reserve(2)).collect();
        driver.client.ask(&Request::Begin);
        Self { driver, buffers }
    }

    /// Does requests with four tags in turn, with generations as Linux has them from 5.14 on.
    fn work(&mut self, requests: u16, unmap: Unmap) -> Stale {
        let mut waiting: Vec<Pages> = Vec::new();
        for request in 0..requests {
            let tag = request % 4;
            let fresh = match unmap {
                Unmap::Strict => self.buffers[usize::from(tag)],
                _ => self.driver.reserve(2),
            };
            self.driver.map(fresh, 3);
            let identifier = tag | (request / 4 % 16) << 12;
            let prps = [fresh.iova, fresh.iova + PAGE];
            assert_eq!(self.driver.io(Command::io(READ, identifier, 0, 16, prps)).status, OK);
            waiting.push(fresh);
            let due = match unmap {
                Unmap::Strict => 1,
                Unmap::Batch(count) => count,
                Unmap::Never => usize::MAX,
            };
            if waiting.len() >= due {
                waiting.drain(..).for_each(|pages| self.driver.unmap(pages));
            }
        }
        self.driver.client.counts().stale.unwrap()
    }
}

#[test]
fn reports_nothing_for_a_strict_kernel() {
    let mut kernel = Kernel::new();
    let stale = kernel.work(40, Unmap::Strict);
    assert_eq!((stale.requests, stale.stale, stale.reachable, stale.never), (40, 0, 0, 0));
    assert_eq!(stale.later_requests.unwrap().max, 0);
    assert_eq!(stale.most_bytes, 2 * PAGE);
    assert!(stale.ns.unwrap().max > 0);
    kernel.driver.client.quit();
}

#[test]
fn reports_buffers_that_a_batch_leaves_mapped() {
    let mut kernel = Kernel::new();
    let stale = kernel.work(40, Unmap::Batch(8));
    // Of eight in a batch the first four have had their tags used again.
    assert_eq!((stale.requests, stale.stale, stale.reachable, stale.never), (40, 20, 20, 0));
    assert_eq!(stale.later_requests.unwrap().max, 7);
    assert_eq!(stale.most_bytes, 16 * PAGE);
    kernel.driver.client.quit();
}

#[test]
fn reports_a_leaked_mapping() {
    let mut kernel = Kernel::new();
    let stale = kernel.work(12, Unmap::Never);
    assert_eq!((stale.requests, stale.stale, stale.reachable, stale.never), (12, 8, 8, 12));
    assert_eq!(stale.never_lines.len(), 8);
    assert!(stale.never_lines[0].contains("2 of 2 mappings live"), "{stale:?}");
    assert_eq!(stale.ns, None);
    kernel.driver.client.quit();
}

/// The kernel forgets to flush, and hands the same address out again for the same memory: QEMU
/// sees nothing change, and one mapping serves request after request.
#[test]
fn reports_a_leaked_mapping_that_is_used_again() {
    let mut kernel = Kernel::new();
    let pages = kernel.buffers[0];
    kernel.driver.map(pages, 3);
    for identifier in [0, 1, 0, 1, 2] {
        let prps = [pages.iova, pages.iova + PAGE];
        kernel.driver.io(Command::io(READ, identifier, 0, 16, prps));
    }
    let stale = kernel.driver.client.counts().stale.unwrap();
    // Only the first with each tag had them made for it.
    assert_eq!((stale.requests, stale.stale, stale.never), (3, 2, 3));
    kernel.driver.unmap(pages);
    assert_eq!(kernel.driver.client.counts().stale.unwrap().never, 0);
    kernel.driver.client.quit();
}

#[test]
fn ignores_mappings_that_outlive_requests_by_nature() {
    let mut driver = Driver::enabled(settings());
    // Identity mappings, as with passthrough, were there before the queue.
    let pages = driver.pages(2);
    driver.create_queue();
    driver.client.ask(&Request::Begin);
    for request in 0..20 {
        driver.io(Command::io(READ, request % 3, 0, 16, [pages.iova, pages.iova + PAGE]));
    }
    let stale = driver.client.counts().stale.unwrap();
    assert_eq!((stale.requests, stale.stale, stale.never), (0, 0, 0));
    driver.client.quit();
}

#[test]
fn counts_only_requests_of_the_window() {
    let mut kernel = Kernel::new();
    kernel.work(8, Unmap::Never);
    kernel.driver.client.ask(&Request::Begin);
    let stale = kernel.work(4, Unmap::Strict);
    assert_eq!((stale.requests, stale.stale, stale.never), (4, 0, 0));
    kernel.driver.client.quit();
}

#[test]
fn tracks_nothing_if_disabled() {
    let mut driver = Driver::new(Settings { follow: false, ..settings() });
    let pages = driver.pages(1);
    driver.io(Command::io(READ, 1, 0, 1, [pages.iova, 0]));
    assert_eq!(driver.client.counts().stale, None);
    driver.client.quit();
}
