//! What the types must refuse, and what they must allow.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The compiler whose words the `.stderr` files hold.
const RECORDED: &str = "rustc 1.95.";

#[test]
fn misuse_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/compile_pass/*.rs");
    if says_what_was_recorded() {
        cases.compile_fail("tests/compile_fail/*.rs");
        return;
    }
    // Another compiler says the same in other words: then only that the cases are refused is checked, on a copy, whose
    // recorded words trybuild may write anew.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    fs::create_dir_all(&copy).expect("a folder of ours");
    for case in fs::read_dir("tests/compile_fail").expect("the cases") {
        let case = case.expect("a case").path();
        if case.extension().is_some_and(|extension| extension == "rs") {
            fs::copy(&case, copy.join(case.file_name().expect("a file"))).expect("a copy");
        }
    }
    // SAFETY: this process has one test, and so no other thread that reads the environment.
    unsafe { env::set_var("TRYBUILD", "overwrite") };
    cases.compile_fail(copy.join("*.rs"));
}

fn says_what_was_recorded() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("cargo has just used it");
    String::from_utf8_lossy(&version.stdout).starts_with(RECORDED)
}
