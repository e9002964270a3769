//! What a mapping costs: bytes of memory and nanoseconds, with many of them live.
//!
//! The bytes are the growth of this process's resident memory, so they have the allocator's own
//! share. `cargo bench -p dmarig-probe --bench shadow`; a number asks for as many live mappings.

use std::{hint::black_box, time::Instant};

use dmarig_pattern::mix;
use dmarig_probe::shadow::{Access, FileId, Shadow};

/// Live mappings.
const LIVE: u64 = 1_000_000;
/// Maps and unmaps that are timed.
const CHANGES: u64 = 1_000_000;
const PAGE: u64 = 4096;

fn main() {
    let live = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(LIVE);
    let before = resident();
    let mut shadow = Shadow::default();
    let began = Instant::now();
    // From the top of an address space downwards, as Linux hands IOVAs out.
    for page in 0..live {
        map(&mut shadow, iova(page));
    }
    let fill = began.elapsed().as_nanos() as f64 / live as f64;
    let bytes = resident().saturating_sub(before) as f64 / live as f64;
    println!("{live} live mappings: {bytes:.1} bytes each, {fill:.0} ns to make each in order");

    let began = Instant::now();
    let mut gone = 0;
    for change in 0..CHANGES {
        let address = iova(mix(change) % live);
        gone += shadow.unmap(address, PAGE, |_| ()).expect("it is mapped");
        map(&mut shadow, address);
    }
    let change = began.elapsed().as_nanos() as f64 / (2 * CHANGES) as f64;
    assert_eq!(gone, CHANGES);
    println!("{change:.0} ns to unmap or map one of them, in no order");

    let began = Instant::now();
    let mut pieces = Vec::new();
    for lookup in 0..CHANGES {
        pieces.clear();
        let address = iova(mix(!lookup) % live);
        shadow.resolve(address, PAGE, Access::READ, &mut pieces).expect("it is mapped");
        black_box(&pieces);
    }
    let lookup = began.elapsed().as_nanos() as f64 / CHANGES as f64;
    println!("{lookup:.0} ns to look one of them up, in no order");
}

fn iova(page: u64) -> u64 {
    (1 << 48) - (page + 1) * PAGE
}

fn map(shadow: &mut Shadow, address: u64) {
    let file = FileId::new(0).expect("the first file has a number");
    let access = Access { read: true, write: true };
    shadow.map(address, PAGE, (file, 0), access, 1).expect("nothing is mapped there");
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * PAGE
}
