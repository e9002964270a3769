//! The JSON document, as others read it.

use dmarig_model::{
    axes::{Policy::Lazy, Toggle::On},
    document::Document,
    judge::judge,
    observation::{End, Observation, WindowKind},
};
use serde_json::{Value, json};

use crate::seen::{Guest, case_for};

fn document(seen: &Observation) -> Value {
    let verdict = judge(&case_for(seen.axes.device), seen);
    serde_json::to_value(Document::new("r1", [(seen, &verdict)])).unwrap()
}

#[test]
fn a_cell_is_shown_as_promised() {
    let mut seen = Guest::new("6.1.176", On, Lazy).warned().observe();
    let mut timing = seen.windows[0].clone();
    timing.kind = WindowKind::Timing;
    timing.trace = None;
    seen.windows.push(timing);
    let document = document(&seen);
    assert_eq!((&document["schema"], &document["run"]), (&json!(1), &json!("r1")));
    let cell = &document["cells"][0];
    let axes = &cell["axes"];
    assert_eq!((&axes["caching_mode"], &axes["policy"]), (&json!("on"), &json!("lazy")));
    assert_eq!((&axes["device"], &axes["kernel"]), (&json!("nvme"), &json!("6.1.176-test")));
    assert_eq!((&cell["outcome"], &cell["reasons"]), (&json!("passed"), &json!([])));
    assert_eq!((&cell["warning"], &cell["group_type"]), (&json!(true), &json!("DMA")));
    let counts = &cell["counts"];
    let names = ["psi", "dsi", "global", "page_walk_entries", "page_walk_in_vain", "dma_ops"];
    assert_eq!(names.map(|name| counts[name].as_u64().unwrap()), [800, 0, 0, 0, 0, 400]);
    assert_eq!(
        cell["metrics"][0],
        json!({"name": "throughput", "value": 26_214_400.0, "unit": "bytes/s", "samples": [26_214_400.0]})
    );
}

#[test]
fn what_is_not_known_is_null() {
    let mut seen = Guest::new("6.1.176", On, Lazy).observe();
    seen.end = End::Skipped { reason: "no such QEMU".to_owned() };
    seen.release = None;
    seen.guest = None;
    seen.log.records.clear();
    seen.windows.clear();
    let document = document(&seen);
    let cell = &document["cells"][0];
    assert_eq!((&cell["outcome"], &cell["reasons"]), (&json!("skipped"), &json!(["no such QEMU"])));
    for null in
        [&cell["warning"], &cell["group_type"], &cell["axes"]["kernel"], &cell["counts"]["psi"]]
    {
        assert!(null.is_null());
    }
    assert_eq!(cell["metrics"], json!([]));
}
