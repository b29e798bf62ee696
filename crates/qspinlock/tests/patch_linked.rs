//! Sites in programs and libraries that are linked in other ways than a test is: a static program, and a shared library
//! that is loaded while threads run. Each is built here, by the cargo that runs this test.

#![cfg(target_os = "linux")]

#[path = "support/watchdog.rs"]
mod watchdog;

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use watchdog::Watchdog;

/// Builds an example, in a package that needs nothing but the library. Returns the folder where it lies.
fn build(example: &str, kind: &str, flags: &str) -> PathBuf {
    let library = env!("CARGO_MANIFEST_DIR");
    let features = if cfg!(feature = "portable") { r#"features = ["portable"]"# } else { "" };
    let package = format!(
        r#"
        [package]
        name = "linked"
        edition = "2024"
        [workspace]
        [dependencies.qspinlock]
        path = "{library}"
        {features}
        {kind}
        name = "{example}"
        path = "{library}/examples/{example}.rs"
        "#
    );
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("linked-{example}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("Cargo.toml"), package).expect("written");
    let versions = [library, "../../Cargo.lock"].iter().collect::<PathBuf>();
    std::fs::copy(versions, folder.join("Cargo.lock")).expect("the versions that the workspace has");
    let target =
        format!("{}-unknown-linux-{}", std::env::consts::ARCH, if cfg!(target_env = "musl") { "musl" } else { "gnu" });
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--target", &target, "--target-dir", "target"]);
    let output = cargo.current_dir(&folder).env("RUSTFLAGS", flags).output().expect("cargo");
    assert!(output.status.success(), "{output:?}");
    folder.join("target").join(target).join("debug")
}

#[cfg(target_env = "gnu")]
#[test]
fn a_static_program() {
    let _watchdog = Watchdog::arm("a_static_program", Duration::from_secs(600));
    let program = build("patched", "[[bin]]", "-C target-feature=+crt-static").join("patched");
    let output = Command::new(&program).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let image = std::fs::read(program).expect("the program");
    let half = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
    let (first, size, count) = (half(32), half(54), half(56));
    const INTERPRETER: usize = 3;
    assert!((0..count).all(|n| half(first + n * size) != INTERPRETER), "nobody links it when it starts");
}

/// Records are kept with their function and dropped with it: where the linker can, it drops both.
#[test]
fn a_function_that_is_dropped() {
    let _watchdog = Watchdog::arm("a_function_that_is_dropped", Duration::from_secs(600));
    let flags = "-C opt-level=3 -C codegen-units=1 -C debuginfo=0";
    let program = build("patched_dropped", "[[bin]]", flags).join("patched_dropped");
    let output = Command::new(&program).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let image = std::fs::read(program).expect("the program");
    let has = |text: &[u8]| image.windows(text.len()).any(|bytes| bytes == text);
    // Others keep all sections of which the ends have a name.
    assert!(!has(b"Linker: LLD") || !has(b"patched_dropped_unused"), "its record keeps it");
}

#[test]
fn a_library_that_is_loaded_late() {
    let _watchdog = Watchdog::arm("a_library_that_is_loaded_late", Duration::from_secs(600));
    let path = build("patched_library", "[lib]\ncrate-type = ['cdylib']", "").join("libpatched_library.so");
    let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
    let is_over = AtomicBool::new(false);
    // Other threads run, and use locks of this program's own copy.
    static OURS: qspinlock::Mutex<u64> = qspinlock::Mutex::new(0);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    *OURS.lock() += 1;
                }
            });
        }
        while *OURS.lock() == 0 {
            std::thread::yield_now();
        }
        // SAFETY: a library of ours, whose constructor rewrites its own code.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null());
        // SAFETY: functions of that library, of these types.
        let (add, follows) = unsafe {
            let find = |name: &std::ffi::CStr| {
                let found: *mut c_void = libc::dlsym(library, name.as_ptr());
                assert!(!found.is_null(), "{name:?}");
                found
            };
            (
                core::mem::transmute::<*mut c_void, extern "C" fn(u64) -> u64>(find(c"patched_library_add")),
                core::mem::transmute::<*mut c_void, extern "C" fn() -> i32>(find(c"patched_library_follows")),
            )
        };
        assert_eq!(follows(), 1);
        let threads = [(); 3].map(|()| s.spawn(move || add(1000)));
        for thread in threads {
            assert!(thread.join().expect("it adds") >= 1000);
        }
        assert_eq!(add(0), 3000);
        is_over.store(true, Ordering::Relaxed);
    });
}
