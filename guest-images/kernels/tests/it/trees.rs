//! A user's own trees: read, followed, never written to.

use std::fs;
use std::process::Command;

use dmarig_kernels::{Error, Fault, Source, Spec};

use crate::small_source::{Place, edited, snapshot};

#[test]
fn copies_only_changed_files_of_a_plain_directory() {
    let place = Place::new();
    let before = snapshot(&place.source());
    let first = place.build(&place.spec(None)).unwrap();
    place.build(&edited(&place.spec(None), "bug", "a.c", "return 1", "return 2")).unwrap();
    assert_eq!(snapshot(&place.source()), before);
    place.write("a.c", "int a(void) { return 5; }\n");
    let changed = place.build(&place.spec(None)).unwrap();
    assert_eq!(changed.made, 2);
    // A file that comes and goes.
    place.write("b.c", "int b;\n");
    assert_eq!(place.build(&place.spec(None)).unwrap().made, 2);
    fs::remove_file(place.source().join("b.c")).unwrap();
    place.write("a.c", "int a(void) { return 1; }\n");
    let back = place.build(&place.spec(None)).unwrap();
    assert_eq!((back.already_cached, back.kernel.id), (true, first.kernel.id));
}

#[test]
fn builds_revisions_in_one_workspace_without_touching_the_repository() {
    let place = Place::new();
    let one = place.commit();
    place.write("a.c", "int a(void) { return 2; }\n");
    let two = place.commit();
    place.write("a.c", "int a(void) { return }\n");
    let broken = place.commit();
    let before = snapshot(&place.source());
    assert_eq!(place.build(&place.spec(Some(&one))).unwrap().made, 3);
    assert_eq!(place.build(&place.spec(Some(&two))).unwrap().made, 2);
    let error = place.build(&place.spec(Some(&broken))).unwrap_err();
    assert!(matches!(error, Error::DoesNotBuild { .. }), "{error}");
    let bug = edited(&place.spec(Some("HEAD~1")), "bug", "kernel.c", "a();", "a(); a();");
    assert_eq!(place.build(&bug).unwrap().made, 3);
    assert!(place.build(&place.spec(Some(&one))).unwrap().already_cached);
    assert_eq!(snapshot(&place.source()), before);
    let workspaces = fs::read_dir(place.cache.dir().join("work")).unwrap().flatten();
    assert_eq!(workspaces.filter(|entry| entry.path().is_dir()).count(), 1);
    let error = place.build(&place.spec(Some("no-such"))).unwrap_err();
    assert_eq!(error.fault(), Fault::Request);
    assert!(error.to_string().contains("there is no revision `no-such"), "{error}");
}

#[test]
fn builds_the_working_tree_without_a_revision() {
    let place = Place::new();
    place.write(".gitignore", "*.o\n");
    place.commit();
    let clean = place.build(&place.spec(None)).unwrap();
    place.write("a.c", "int a(void) { return 3; }\n");
    place.write("b.c", "int b;\n");
    place.write("ignored.o", "rubbish");
    let before = snapshot(&place.source());
    let dirty = place.build(&place.spec(None)).unwrap();
    assert_eq!(dirty.made, 3);
    assert_eq!(snapshot(&place.source()), before);
    assert!(dirty.kernel.about[0].contains("and 2 changed files"), "{:?}", dirty.kernel.about);
    let head = place.build(&place.spec(Some("HEAD"))).unwrap();
    assert_eq!(head.kernel.id, clean.kernel.id);
    fs::remove_file(place.source().join("b.c")).unwrap();
    place.git(&["checkout", "--quiet", "a.c"]);
    assert!(place.build(&place.spec(None)).unwrap().already_cached);
}

#[test]
fn leaves_a_bare_clone_unchanged() {
    let place = Place::new();
    let one = place.commit();
    let bare = place.dir.path().join("bare.git");
    let status = Command::new("git")
        .args(["clone", "--quiet", "--bare"])
        .arg(place.source())
        .arg(&bare)
        .status()
        .unwrap();
    assert!(status.success());
    let before = snapshot(&bare);
    for rev in [None, Some(one)] {
        place.build(&Spec::new(Source::Tree { dir: bare.clone(), rev })).unwrap();
    }
    assert_eq!(snapshot(&bare), before);
}

#[test]
fn fetches_nothing_into_a_partial_clone() {
    let place = Place::new();
    let one = place.commit();
    place.git(&["config", "uploadpack.allowFilter", "true"]);
    let partial = place.dir.path().join("partial");
    let status = Command::new("git")
        .args(["clone", "--quiet", "--no-checkout", "--filter=blob:none"])
        .arg(format!("file://{}", place.source().display()))
        .arg(&partial)
        .status()
        .unwrap();
    assert!(status.success());
    let before = snapshot(&partial);
    let spec = Spec::new(Source::Tree { dir: partial.clone(), rev: Some(one) });
    let error = place.build(&spec).unwrap_err();
    assert!(snapshot(&partial) == before, "it was written to");
    // It is no source that lacks a file.
    assert_eq!(error.fault(), Fault::Host);
    assert!(error.to_string().contains("partial clone"), "{error}");
}

#[test]
fn builds_committed_content_despite_git_replacements() {
    let place = Place::new();
    let one = place.commit();
    let old = place.git(&["rev-parse", "HEAD:a.c"]);
    place.write("a.c", "int a(void) { return 9; }\n");
    let new = place.git(&["hash-object", "-w", "a.c"]);
    place.git(&["replace", &old, &new]);
    let spec = edited(&place.spec(Some(&one)), "bug", "a.c", "return 1", "return 2");
    place.build(&spec).unwrap();
}

#[test]
fn refuses_what_is_not_a_kernel_source() {
    let place = Place::new();
    place.write(".config", "CONFIG_A=y\n");
    let error = place.build(&place.spec(None)).unwrap_err();
    assert!(error.to_string().contains("make mrproper"), "{error}");
    fs::remove_file(place.source().join(".config")).unwrap();
    let error = place.build(&place.spec(Some("v1"))).unwrap_err();
    assert!(error.to_string().contains("not the top of a git tree"), "{error}");
    fs::remove_file(place.source().join("Kconfig")).unwrap();
    let error = place.build(&place.spec(None)).unwrap_err();
    assert!(error.to_string().contains("no Kconfig"), "{error}");
    let gone = Source::Tree { dir: place.dir.path().join("gone"), rev: None };
    let error = place.build(&Spec::new(gone)).unwrap_err();
    assert_eq!(error.fault(), Fault::Request);
    assert!(error.to_string().contains("gone: can't read: No such file"), "{error}");
    let error = place.build(&Spec::new(Source::Package("linux-1.0".into()))).unwrap_err();
    assert!(error.to_string().contains("there are linux-5.10"), "{error}");
    let error = place.build(&Spec::new(Source::Package("linux-5.10".into()))).unwrap_err();
    assert!(error.to_string().contains("dmarig images fetch linux-5.10"), "{error}");
    assert_eq!(error.fault(), Fault::Request);
}
