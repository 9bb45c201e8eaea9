use super::*;

fn content(spec: &str) -> ModuleFiles {
    let file = |path: &str, executable| ModuleFile {
        path: path.to_owned(),
        content: b"#!/bin/sh\n".to_vec(),
        executable,
    };
    ModuleFiles {
        spec: spec.to_owned(),
        files: vec![file("scripts/start_prim", true), file("conf/app.conf", false)],
    }
}

fn install(module: &ModulePaths, content: &ModuleFiles) -> String {
    let present = label(module).ok();
    let parent = present.as_ref().map(|label| label.version.clone());
    let version = version(content, parent.as_deref());
    let label = next_label(present.as_ref(), "db", &version, parent.as_deref(), vec!["n1".to_owned()]);
    prepare(module, &label, content).unwrap();
    commit(module, &version).unwrap();
    version
}

#[test]
fn versions_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(Some(dir.path()));
    let module = paths.module("db");
    assert_eq!(head(&paths, "db"), None);
    let first = install(&module, &content("one"));
    let second = install(&module, &content("two"));
    assert_eq!(head(&paths, "db"), Some(second.clone()));
    assert_eq!(before(&paths, "db"), vec![first]);
    assert_eq!(installed(&paths).unwrap(), vec!["db"]);
    let mut expected = content("two");
    expected.files.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(files(&paths, "db").unwrap(), expected);
    // Again: done already.
    commit(&module, &second).unwrap();
    assert!(commit(&module, "another").is_err());
}

#[test]
fn what_is_prepared_changes_nothing_until_committed() {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::new(Some(dir.path()));
    let module = paths.module("db");
    let label = next_label(None, "db", "v", None, vec![]);
    prepare(&module, &label, &content("one")).unwrap();
    assert_eq!(installed(&paths).unwrap(), Vec::<String>::new());
    abort(&module, "w").unwrap();
    assert!(next(&module).exists());
    abort(&module, "v").unwrap();
    assert!(!module.lib().exists());
    let version = install(&module, &content("one"));
    prepare(&module, &next_label(None, "db", "v", None, vec![]), &content("two")).unwrap();
    assert_eq!(head(&paths, "db"), Some(version));
    remove(&module).unwrap();
    assert!(!module.lib().exists());
}

#[test]
fn a_path_that_leaves_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let module = Paths::new(Some(dir.path())).module("db");
    for path in ["../x", "/x", "a/../../x", LABEL] {
        let mut content = content("one");
        content.files[0].path = path.to_owned();
        assert!(prepare(&module, &next_label(None, "db", "v", None, vec![]), &content).is_err(), "{path}");
    }
}

#[test]
fn the_version_covers_content_mode_and_parent() {
    let one = content("one");
    let mut other = content("one");
    other.files[1].executable = true;
    let mut turned = content("one");
    turned.files.reverse();
    assert_ne!(version(&one, None), version(&other, None));
    assert_ne!(version(&one, None), version(&one, Some("p")));
    assert_eq!(version(&one, None), version(&turned, None));
}
