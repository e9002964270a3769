use std::fs;

use dmarig_images::{Boot, ConfigValue};
use dmarig_kernels::{Error, Fault};

use crate::small_source::{Place, ProgressLog, configured, edited};

#[test]
fn builds_a_kernel_once_and_finds_it_by_name() {
    let place = Place::new();
    let spec = place.spec(None);
    let built = place.build(&spec).unwrap();
    assert!(!built.already_cached);
    assert_eq!((built.made, built.kernel.release.as_str()), (3, "9.9.9-small"));
    let phases: Vec<_> = built.phases.iter().map(|phase| phase.name).collect();
    assert_eq!(phases, ["source", "configure", "compile", "keep"]);
    assert!(place.build(&spec).unwrap().already_cached);

    place.cache.name_built("mine", &built.kernel.id).unwrap();
    let image = place.cache.resolve("mine", None).unwrap();
    assert_eq!((image.boot, image.release.as_str()), (Boot::Pvh, "9.9.9-small"));
    assert_eq!(image.config.unwrap().get("CONFIG_INTEL_IOMMU"), ConfigValue::Yes);
    let names: Vec<_> =
        place.cache.all_built().unwrap().into_iter().map(|named| named.name).collect();
    assert_eq!(names, ["mine"]);
    assert!(place.cache.rm_built("mine").unwrap() > 0);
    assert!(place.cache.resolve("mine", None).is_err());
    // Somebody who takes it away does not harm the next build: its objects are still there.
    let again = place.build(&spec).unwrap();
    assert_eq!((again.already_cached, again.made), (false, 0));
}

#[test]
fn compiles_only_what_an_edit_changes_and_reverts_it() {
    let place = Place::new();
    let good = place.spec(None);
    let log = ProgressLog::default();
    let first = place.build_logged(&good, &log).unwrap();
    assert_eq!(log.total.get(), None);
    let bug = edited(&good, "bug", "a.c", "return 1", "return 2");
    let log = ProgressLog::default();
    let bad = place.build_logged(&bug, &log).unwrap();
    // One file, and the link; how many there are is known by now.
    assert_eq!((bad.made, log.total.get()), (2, Some(3)));
    assert_ne!(first.kernel.id, bad.kernel.id);
    assert_ne!(fs::read(&first.kernel.vmlinux).unwrap(), fs::read(&bad.kernel.vmlinux).unwrap());
    assert!(bad.kernel.about.iter().any(|line| line == "edits: bug"));
    // Another bug elsewhere: the first one's file is as it was.
    let other = edited(&good, "other", "kernel.c", "a();", "a(); a();");
    assert_eq!(place.build(&other).unwrap().made, 3);
    assert_eq!(
        fs::read_to_string(place.source().join("a.c")).unwrap(),
        "int a(void) { return 1; }\n"
    );
    let both = edited(&other, "bug", "a.c", "return 1", "return 2");
    assert_eq!(place.build(&both).unwrap().made, 2);
}

#[test]
fn blames_the_source_for_a_compile_error_and_reports_the_first() {
    let place = Place::new();
    let good = place.spec(None);
    let broken = edited(&good, "broken", "a.c", "return 1", "return x + y");
    let error = place.build(&broken).unwrap_err();
    assert_eq!(error.fault(), Fault::Source);
    let text = error.to_string();
    assert!(text.contains("a.c:1:") && text.contains("error: 'x' undeclared"), "{text}");
    assert!(!text.contains("***"), "{text}");
    // By the file's name in the source, wherever ours is.
    let Error::DoesNotBuild { first, .. } = &error else { panic!("{error}") };
    assert!(first.starts_with("a.c:1:"), "{first}");
    // Linking is building too.
    let unlinked = edited(&good, "unlinked", "a.c", "return 1", "int b(void); return b()");
    let error = place.build(&unlinked).unwrap_err();
    assert!(
        matches!(&error, Error::DoesNotBuild { first, .. } if first.contains("`b'")),
        "{error}"
    );
    // The next one is not harmed.
    place.build(&good).unwrap();
}

#[test]
fn blames_the_source_for_an_unbootable_kernel_each_time() {
    let place = Place::new();
    let good = place.spec(None);
    let unstartable = edited(&good, "unstartable", "kernel.c", ".long 4, 4, 18", ".long 4, 4, 17");
    // What was refused once is not in the cache the next time.
    for _ in 0..2 {
        let error = place.build(&unstartable).unwrap_err();
        assert_eq!(error.fault(), Fault::Source, "{error}");
        assert!(error.to_string().contains("no PVH entry"), "{error}");
    }
    place.build(&good).unwrap();
}

#[test]
fn blames_the_host_for_a_full_disk() {
    let place = Place::new();
    let line =
        "\t@echo \"cc1: fatal error: can't write a.o: No space left on device\" >&2; exit 1\n";
    let text = fs::read_to_string(place.source().join("Makefile")).unwrap();
    place.write("Makefile", &text.replace("\t@echo '  LD", &format!("{line}\t@echo '  LD")));
    let error = place.build(&place.spec(None)).unwrap_err();
    assert!(matches!(error, Error::BuildBroke { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Host);
}

#[test]
fn explains_why_an_option_was_lost() {
    let place = Place::new();
    let spec = configured(&place.spec(None), "CONFIG_MISSING=y\nCONFIG_LOST=y\n");
    let error = place.build(&spec).unwrap_err();
    assert_eq!(error.fault(), Fault::Source);
    let text = error.to_string();
    assert!(text.contains("CONFIG_MISSING=y: needs `OUTER` (here OUTER=n)"), "{text}");
    assert!(text.contains("CONFIG_LOST=y: this kernel has no such option"), "{text}");
    let optional = configured(&place.spec(None), "# optional: later\nCONFIG_MISSING=y\n");
    place.build(&optional).unwrap();
}

#[test]
fn separates_objects_by_configuration() {
    let place = Place::new();
    let plain = place.build(&place.spec(None)).unwrap();
    let spec = configured(&place.spec(None), "CONFIG_OTHER=y\n");
    assert_eq!(spec.name(), "source+mine");
    let other = place.build(&spec).unwrap();
    assert_ne!(plain.kernel.id, other.kernel.id);
    assert_eq!(other.made, 3);
}

#[test]
fn reports_a_missing_anchor_before_building() {
    let place = Place::new();
    let spec = edited(&place.spec(None), "bug", "a.c", "return 7", "return 8");
    let log = ProgressLog::default();
    let error = place.build_logged(&spec, &log).unwrap_err();
    assert!(error.to_string().contains("bug: in a.c the text to find stands nowhere"), "{error}");
    assert_eq!(log.made.get(), 0);
}
