//! Cells, their ids, and finding them.

use dmarig_model::{
    axes::{Axis, Toggle},
    case::Case,
    conditions::AxisSets,
    matrix::{Cell, cells, parse_override, select, select_one},
};

use crate::axes::with_axes;

const CASE: &str = "\
case: smoke
axes: {caching-mode: [off, on], policy: [lazy, strict, passthrough], device: nvme}
exclude: [{when: {caching-mode: off, policy: passthrough}, reason: boring}]
workload: {block: {}}
";

fn unfold(overrides: &[&str]) -> Result<Vec<Cell>, String> {
    let case = Case::parse("smoke.yaml", CASE).unwrap();
    let mut given = AxisSets::default();
    for text in overrides {
        parse_override(text, &mut given).map_err(|error| error.to_string())?;
    }
    cells(&case, &given).map_err(|error| error.to_string())
}

fn ids(cells: &[Cell]) -> Vec<&str> {
    cells.iter().map(|cell| &*cell.id).collect()
}

#[test]
fn a_case_unfolds_in_order() {
    assert_eq!(
        ids(&unfold(&["kernel=debian-6.1"]).unwrap()),
        [
            "smoke/caching-mode=off,policy=lazy,kernel=debian-6.1",
            "smoke/caching-mode=off,policy=strict,kernel=debian-6.1",
            "smoke/caching-mode=on,policy=lazy,kernel=debian-6.1",
            "smoke/caching-mode=on,policy=strict,kernel=debian-6.1",
            "smoke/caching-mode=on,policy=passthrough,kernel=debian-6.1",
        ]
    );
}

#[test]
fn a_cell_has_one_id_however_it_is_asked_for() {
    let whole = unfold(&["kernel=a,b"]).unwrap();
    let part = unfold(&["kernel=b", "caching-mode=on", "policy=lazy", "device=nvme"]).unwrap();
    assert_eq!(ids(&part), ["smoke/caching-mode=on,policy=lazy,kernel=b"]);
    assert!(whole.contains(&part[0]));
    assert_eq!(part[0].varied, [Axis::CachingMode, Axis::Policy, Axis::Kernel]);
    assert_eq!(part[0].axes.caching_mode, Toggle::On);
}

#[test]
fn what_the_case_would_not_have_is_in_the_id() {
    let cells = unfold(&[
        "device=virtio-blk",
        "caching_mode=on",
        "policy=lazy",
        "kernel=k",
        "aw-bits=48,default",
    ]);
    assert_eq!(
        ids(&cells.unwrap()),
        [
            "smoke/caching-mode=on,policy=lazy,device=virtio-blk,aw-bits=48,kernel=k",
            "smoke/caching-mode=on,policy=lazy,device=virtio-blk,kernel=k",
        ]
    );
}

#[test]
fn ids_are_safe_in_a_shell_and_as_a_file_name() {
    let cells = unfold(&["kernel=/boot/a b$(x)", "caching-mode=on", "policy=lazy"]).unwrap();
    assert_eq!(ids(&cells), ["smoke/caching-mode=on,policy=lazy,kernel=_boot_a_b__x_"]);
    assert_eq!(
        unfold(&["kernel=a b,a_b", "caching-mode=on", "policy=lazy"]).unwrap_err(),
        "two cells have the id `smoke/caching-mode=on,policy=lazy,kernel=a_b`: give kernels and QEMUs names that differ in letters or digits"
    );
}

#[test]
fn bad_overrides_say_what_would_be_right() {
    for (overrides, message) in [
        (&["caching-mode"][..], "`caching-mode`: write axis=value or axis=value,value"),
        (
            &["polcy=lazy"],
            "`polcy=lazy`: unknown key `polcy`; did you mean `policy`? (there are ALL AXES)",
        ),
        (
            &["policy=layz"],
            "`policy=layz`: unknown value `layz`; did you mean `lazy`? (there are lazy, strict, passthrough)",
        ),
        (&["policy=lazy,lazy"], "`policy=lazy,lazy`: a value stands twice"),
        (
            &["policy=lazy", "policy=strict"],
            "`policy=strict`: policy was given before: write all values in one list",
        ),
        (&["smp=0"], "`smp=0`: a guest has 1 to 255 CPUs"),
        // Bytes, where MiB were meant.
        (&["memory=512"], "`memory=512`: a guest has whole MiB of memory, 128MiB to 1TiB"),
        (&["smp=x"], "`smp=x`: found string \"x\", expected a whole number"),
        (
            &["caching-mode=off", "policy=passthrough"],
            "case `smoke` has no cell left: all are excluded (boring)",
        ),
        (&["device=e1000e"], "case `smoke` has no cell left: it has no workload for e1000e"),
    ] {
        assert_eq!(unfold(overrides).unwrap_err(), with_axes(message));
    }
}

#[test]
fn cells_are_found_by_id_glob_and_part() {
    let cells = unfold(&["kernel=k"]).unwrap();
    let count = |pattern: &str| select(&cells, &[pattern.to_owned()]).map(|found| found.len());
    assert_eq!(select(&cells, &[]).unwrap().len(), 5);
    assert_eq!(count("smoke/caching-mode=on,policy=lazy,kernel=k"), Ok(1));
    assert_eq!(count("smoke/*policy=lazy*"), Ok(2));
    assert_eq!(count("caching-mode=on"), Ok(3));
    assert_eq!(count("*policy=?azy,*"), Ok(2));
    assert_eq!(
        count("smoke/caching-mode=on,policy=lasy,kernel=k").unwrap_err().to_string(),
        "no cell is named `smoke/caching-mode=on,policy=lasy,kernel=k`; there are smoke/caching-mode=on,policy=lazy,kernel=k  smoke/caching-mode=off,policy=lazy,kernel=k  smoke/caching-mode=on,policy=strict,kernel=k"
    );
    assert_eq!(select_one(&cells, "on,policy=strict").unwrap().axes.caching_mode, Toggle::On);
    assert_eq!(
        select_one(&cells, "policy=strict").unwrap_err().to_string(),
        "`policy=strict` fits 2 cells, name one of them; there are smoke/caching-mode=off,policy=strict,kernel=k  smoke/caching-mode=on,policy=strict,kernel=k"
    );
}
