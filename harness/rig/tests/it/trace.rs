//! The trace's FIFO, written by the test instead of QEMU.

use std::{fs::OpenOptions, io::Write};

use dmarig_model::plan::TRACE_FIFO;
use dmarig_model::viommu::VIOMMUS;
use dmarig_rig::trace::Trace;

#[tokio::test]
async fn counts_exactly_what_was_written_in_each_window() {
    let directory = tempfile::tempdir().unwrap();
    let mut trace = Trace::start(directory.path(), VIOMMUS[0]).unwrap();
    let mut qemu = OpenOptions::new().write(true).open(directory.path().join(TRACE_FIFO)).unwrap();
    let line = b"vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x2\n";
    for expected in [0, 5, 70_000] {
        for _ in 0..expected {
            qemu.write_all(line).unwrap();
        }
        assert_eq!(trace.take().await.unwrap().dsi, expected);
    }
}

#[tokio::test]
async fn ignores_lines_that_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let mut trace = Trace::start(directory.path(), VIOMMUS[0]).unwrap();
    let mut qemu = OpenOptions::new().write(true).open(directory.path().join(TRACE_FIFO)).unwrap();
    qemu.write_all(b"\xff\x00 garbage\nsome_other_event 1 2 3\n").unwrap();
    qemu.write_all(b"vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x2\n").unwrap();
    assert_eq!(trace.take().await.unwrap().dsi, 1);
}
