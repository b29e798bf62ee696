//! Links the kernel by its own script. `x86_64-unknown-none` calls the linker itself, the host's target a C compiler.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let target = std::env::var("TARGET").expect("cargo sets it");
    let script = format!("{folder}/kernel.ld");
    println!("cargo::rerun-if-changed={script}");
    let linker = ["--build-id=none", "--no-dynamic-linker", "-zmax-page-size=4096", "-znoexecstack"];
    if target.ends_with("-none") {
        for arg in linker {
            println!("cargo::rustc-link-arg-bins={arg}");
        }
        println!("cargo::rustc-link-arg-bins=-T{script}");
    } else {
        for arg in ["-nostartfiles", "-nostdlib", "-nodefaultlibs", "-static", "-no-pie"] {
            println!("cargo::rustc-link-arg-bins={arg}");
        }
        for arg in linker {
            println!("cargo::rustc-link-arg-bins=-Wl,{arg}");
        }
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
    }
}
