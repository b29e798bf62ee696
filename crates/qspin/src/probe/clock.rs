//! The time stamp counter: whether it may be used as a clock, and how fast it is.

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub(super) struct Tsc {
    /// It runs at one speed, whatever the CPU does.
    pub(super) invariant: Option<bool>,
    pub(super) mhz: Option<f64>,
    /// Who says so.
    pub(super) mhz_from: Option<&'static str>,
}

#[cfg(target_arch = "x86_64")]
pub(super) fn ask_cpu() -> Tsc {
    let cpuid = raw_cpuid::CpuId::new();
    let invariant = cpuid.get_advanced_power_mgmt_info().map(|info| info.has_invariant_tsc());
    let said = cpuid.get_tsc_info().and_then(|info| info.tsc_frequency()).map(|hz| hz as f64 / 1e6);
    // A hypervisor that says so says it in kHz.
    let beneath = || cpuid.get_hypervisor_info()?.tsc_frequency().map(|khz| f64::from(khz) / 1e3);
    let (mhz, from) = match (said, beneath) {
        (Some(mhz), _) => (mhz, "CPU"),
        (None, beneath) => match beneath() {
            Some(mhz) if mhz > 0.0 => (mhz, "hypervisor"),
            _ => (measure(), "measured"),
        },
    };
    Tsc { invariant, mhz: Some(mhz), mhz_from: Some(from) }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn ask_cpu() -> Tsc {
    Tsc::default()
}

/// Against the system's clock. Each end is read between two readings of that clock, and the tightest of some is taken:
/// being preempted in between would spoil it.
#[cfg(target_arch = "x86_64")]
fn measure() -> f64 {
    use std::time::{Duration, Instant};

    let stamp = || {
        let tightest = (0..16).map(|_| {
            let before = Instant::now();
            // SAFETY: every x86-64 CPU has the instruction, and Linux lets user space use it.
            let tsc = unsafe { core::arch::x86_64::_rdtsc() };
            (before.elapsed(), before, tsc)
        });
        tightest.min().map_or((Instant::now(), 0), |(_, at, tsc)| (at, tsc))
    };
    let (start, first) = stamp();
    std::thread::sleep(Duration::from_millis(20));
    let (end, last) = stamp();
    last.wrapping_sub(first) as f64 / (end - start).as_nanos() as f64 * 1e3
}
