//! How fast a trace is counted, through a real FIFO, and in how much memory.

use std::{fs::OpenOptions, io::Write, time::Instant};

use dmarig_model::{plan::TRACE_FIFO, viommu::VIOMMUS};

/// Events to count.
const EVENTS: usize = 5_000_000;

/// Writes lines like QEMU's into the FIFO and waits until all are counted.
pub(crate) fn bench() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut trace = dmarig_rig::trace::Trace::start(directory.path(), VIOMMUS[0]).expect("a trace");
    let path = directory.path().join(TRACE_FIFO);
    let before = resident_kib();
    let start = Instant::now();
    let writer = std::thread::spawn(move || {
        let mut fifo = OpenOptions::new().write(true).open(path).expect("the FIFO");
        let mut chunk = Vec::with_capacity(1 << 20);
        for n in 0..EVENTS {
            // 60,000 ranges that are mapped and unmapped in turn, as a busy guest's.
            let iova = 0xf000_0000u64 + ((n / 2 % 60_000) as u64) * 0x1000;
            writeln!(
                chunk,
                "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x2 addr {iova:#x} mask 0x0"
            )
            .expect("room");
            if chunk.len() > (1 << 20) - 128 || n + 1 == EVENTS {
                fifo.write_all(&chunk).expect("the FIFO takes it");
                chunk.clear();
            }
        }
    });
    writer.join().expect("the writer ends");
    let counts = runtime.block_on(trace.take()).expect("the counts");
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(counts.psi, EVENTS as u64, "every event is counted");
    println!(
        "trace: {:.2} million events a second, writing included (limit 1.00), {:.1} MiB (limit 64)",
        EVENTS as f64 / seconds / 1e6,
        (peak_kib().saturating_sub(before)) as f64 / 1024.0
    );
}

fn status_kib(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

fn resident_kib() -> u64 {
    status_kib("VmRSS:")
}

fn peak_kib() -> u64 {
    status_kib("VmHWM:")
}
