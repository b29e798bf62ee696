//! Tests of rewritten code: a process for each case, and what can be seen of its memory.

#[path = "forked.rs"]
mod forked;

use std::process::Command;

const CASE: &str = "QSPINLOCK_TEST_CASE";

/// Runs the test again in a process of its own, and there `case`. Does not return there.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn in_child(test: &'static str, case: impl FnOnce()) {
    in_child_of(test, "", case);
}

/// The same, for one of several variants of a test.
pub(crate) fn in_child_of(test: &'static str, variant: &str, case: impl FnOnce()) {
    in_child_with(test, variant, |_| {}, case);
}

/// The same, in a process with its own restrictions.
pub(crate) fn in_child_with(
    test: &'static str,
    variant: &str,
    restrict: impl FnOnce(&mut Command),
    case: impl FnOnce(),
) {
    let id = format!("{test} {variant}");
    match std::env::var(CASE) {
        Ok(now) if now == id => {
            alone(case);
            println!("<<done>>");
            std::process::exit(0);
        }
        // In the child of another variant.
        Ok(_) => return,
        Err(_) => {}
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, &id).env_remove("QSPINLOCK");
    restrict(&mut command);
    let output = command.output().expect("the child starts");
    let has_run = output.stdout.windows(8).any(|text| text == b"<<done>>");
    assert!(output.status.success() && has_run, "{id}: {output:?}");
}

/// Runs `case` in a child that has one thread: with others about, as the harness's, code that follows is not made to
/// follow another choice.
fn alone(case: impl FnOnce()) {
    forked::in_child(120, case);
}

/// The system refuses a call from the beginning of the program on: of `mprotect` one that makes pages executable.
#[cfg(target_os = "linux")]
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn refuse(command: &mut Command, call: libc::c_long) {
    use std::os::unix::process::CommandExt;

    const NUMBER: u32 = 0;
    const ARGUMENT_2: u32 = 16 + 2 * 8;
    let call = u32::try_from(call).expect("a small number");
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let is_protect = u8::from(i64::from(call) == libc::SYS_mprotect);
    let filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, call),
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, ARGUMENT_2),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, is_protect, libc::PROT_EXEC as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: system calls with a live program; between fork and exec nothing else is used.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: makes two system calls.
    unsafe { command.pre_exec(install) };
}

/// No page of this process is writable and executable, and those with sites are executable.
#[cfg(target_os = "linux")]
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn assert_maps() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let mut sites: Vec<usize> = qspinlock::patch::sites().map(|site| site.address()).collect();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').expect("a range");
        let access = &rest[..4];
        assert!(!(access.contains('w') && access.contains('x')), "{line}");
        let (start, end) = range.split_once('-').expect("start and end");
        let at = |text| usize::from_str_radix(text, 16).expect("hexadecimal");
        let range = at(start)..at(end);
        sites.retain(|site| {
            let is_here = range.contains(site);
            assert!(!is_here || access == "r-xp", "{line}");
            !is_here
        });
    }
    assert_eq!(sites, [], "sites are mapped");
}
