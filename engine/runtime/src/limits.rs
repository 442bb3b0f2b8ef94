//! Limits as lines in the files of cgroups.
//!
//! The runtime's library writes most of them when it makes a container. Written here are those of block
//! devices (the library knows one of the kernel's schedulers that have weights, and its sum overflows),
//! and every change of a container that runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice, Spec,
};

use crate::helper::cgroup_directories;

/// A limit that the kernel did not take.
#[allow(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error("{limit}: the kernel has none of the files {files} in its cgroups")]
    Missing { limit: &'static str, files: String },
    #[error("{limit}: writing {value:?} to {file}")]
    Refused { limit: &'static str, value: String, file: String, source: io::Error },
}

/// Block limits that a kernel has, by what is in a cgroup other than the root's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockSupport {
    /// Weights among containers, for all disks.
    pub weight: bool,
    /// Weights at one disk.
    pub weight_device: bool,
    /// Rates.
    pub throttle: bool,
}

/// A file of the kernel that takes a weight, and how large its weights are.
struct WeightFile {
    name: &'static str,
    scaled: bool,
}

const fn weight_file(name: &'static str, scaled: bool) -> WeightFile {
    WeightFile { name, scaled }
}

/// A disk's scheduler decides which of them counts; a weight goes to all that are there.
const WEIGHTS: [WeightFile; 4] = [
    weight_file("blkio.weight", false),
    weight_file("blkio.bfq.weight", false),
    weight_file("io.bfq.weight", false),
    weight_file("io.weight", true),
];
const DEVICE_WEIGHTS: [WeightFile; 4] = [
    weight_file("blkio.weight_device", false),
    weight_file("blkio.bfq.weight_device", false),
    weight_file("io.bfq.weight", false),
    weight_file("io.weight", true),
];

/// A rate: its name for users, its file on version 1, its word in `io.max` on version 2.
struct Rate {
    limit: &'static str,
    file: &'static str,
    word: &'static str,
}

const READ_BPS: Rate =
    Rate { limit: "BlkioDeviceReadBps", file: "blkio.throttle.read_bps_device", word: "rbps" };
const WRITE_BPS: Rate =
    Rate { limit: "BlkioDeviceWriteBps", file: "blkio.throttle.write_bps_device", word: "wbps" };
const READ_IOPS: Rate =
    Rate { limit: "BlkioDeviceReadIOps", file: "blkio.throttle.read_iops_device", word: "riops" };
const WRITE_IOPS: Rate =
    Rate { limit: "BlkioDeviceWriteIOps", file: "blkio.throttle.write_iops_device", word: "wiops" };
const RATES_OF_VERSION_2: &str = "io.max";

/// What the kernel has, seen in these cgroups.
pub fn block_support(cgroups: &[PathBuf]) -> BlockSupport {
    let has = |name: &str| find(cgroups, name).is_some();
    BlockSupport {
        weight: WEIGHTS.iter().any(|file| has(file.name)),
        weight_device: DEVICE_WEIGHTS.iter().any(|file| has(file.name)),
        throttle: has(READ_BPS.file) || has(RATES_OF_VERSION_2),
    }
}

/// What the kernel has, seen in a cgroup that is made for it below the roots of the hierarchies: the
/// roots themselves have fewer files.
pub fn probe_block(name: &str) -> io::Result<BlockSupport> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroups = cgroup_directories(&mounts, Path::new(name));
    for directory in &cgroups {
        let Some(root) = directory.parent() else { continue };
        if root.join("cgroup.controllers").exists() {
            // Where there is no such controller, there are no such files.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+io");
        } else if !root.join(READ_BPS.file).exists() && !root.join("blkio.weight").exists() {
            continue;
        }
        fs::create_dir_all(directory)?;
    }
    Ok(block_support(&cgroups))
}

/// Takes the limits of block devices out of a specification: the library is not to see them.
pub fn take_block(spec: &mut Spec) -> Option<LinuxBlockIo> {
    let resources = spec.linux_mut().as_mut()?.resources_mut().as_mut()?;
    let block = resources.block_io().clone();
    resources.set_block_io(None);
    block
}

/// Writes limits of block devices.
pub fn set_block(cgroups: &[PathBuf], block: &LinuxBlockIo) -> Result<(), LimitError> {
    if let Some(weight) = block.weight() {
        set_weight(cgroups, "BlkioWeight", &WEIGHTS, "", weight)?;
    }
    for device in block.weight_device().iter().flatten() {
        let Some(weight) = device.weight() else { continue };
        let disk = format!("{}:{} ", device.major(), device.minor());
        set_weight(cgroups, "BlkioWeightDevice", &DEVICE_WEIGHTS, &disk, weight)?;
    }
    set_rates(cgroups, &READ_BPS, block.throttle_read_bps_device())?;
    set_rates(cgroups, &WRITE_BPS, block.throttle_write_bps_device())?;
    set_rates(cgroups, &READ_IOPS, block.throttle_read_iops_device())?;
    set_rates(cgroups, &WRITE_IOPS, block.throttle_write_iops_device())
}

/// One of the files has to take it.
fn set_weight(
    cgroups: &[PathBuf],
    limit: &'static str,
    files: &[WeightFile],
    disk: &str,
    weight: u16,
) -> Result<(), LimitError> {
    let mut taken = false;
    let mut refused = None;
    for file in files {
        let Some(path) = find(cgroups, file.name) else { continue };
        let weight = if file.scaled { scaled(weight) } else { weight };
        match write(limit, &path, format!("{disk}{weight}")) {
            Ok(()) => taken = true,
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        _ if taken => Ok(()),
        Some(error) => Err(error),
        None => Err(missing(limit, files.iter().map(|file| file.name))),
    }
}

/// From Docker's 10 to 1000 to the 1 to 10000 of `io.weight`.
fn scaled(weight: u16) -> u16 {
    let above = u32::from(weight.clamp(10, 1000) - 10);
    (1 + above * 9999 / 990) as u16
}

fn set_rates(
    cgroups: &[PathBuf],
    rate: &Rate,
    devices: &Option<Vec<LinuxThrottleDevice>>,
) -> Result<(), LimitError> {
    for device in devices.iter().flatten() {
        let (disk, most) = (format!("{}:{}", device.major(), device.minor()), device.rate());
        if let Some(path) = find(cgroups, rate.file) {
            write(rate.limit, &path, format!("{disk} {most}"))?;
        } else if let Some(path) = find(cgroups, RATES_OF_VERSION_2) {
            let most = if most == 0 { "max".to_owned() } else { most.to_string() };
            write(rate.limit, &path, format!("{disk} {}={most}", rate.word))?;
        } else {
            return Err(missing(rate.limit, [rate.file, RATES_OF_VERSION_2].into_iter()));
        }
    }
    Ok(())
}

/// Changes limits of a container that runs; what is not stated stays.
pub fn change(cgroups: &[PathBuf], limits: &LinuxResources) -> Result<(), LimitError> {
    if let Some(memory) = limits.memory() {
        change_memory(cgroups, memory)?;
    }
    if let Some(cpu) = limits.cpu() {
        change_cpu(cgroups, cpu)?;
    }
    if let Some(pids) = limits.pids() {
        let most = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
        set(cgroups, "PidsLimit", &[("pids.max", most)])?;
    }
    match limits.block_io() {
        Some(block) => set_block(cgroups, block),
        None => Ok(()),
    }
}

fn change_memory(cgroups: &[PathBuf], memory: &LinuxMemory) -> Result<(), LimitError> {
    let or_max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    let set_memory = || match memory.limit() {
        Some(bytes) => set(
            cgroups,
            "Memory",
            &[("memory.limit_in_bytes", bytes.to_string()), ("memory.max", or_max(bytes))],
        ),
        None => Ok(()),
    };
    // Version 1 counts memory and swap together, version 2 swap alone.
    let set_swap = || match (memory.swap(), memory.limit()) {
        (Some(both), limit) => {
            let swap = if both < 0 { both } else { (both - limit.unwrap_or(0)).max(0) };
            let both = ("memory.memsw.limit_in_bytes", both.to_string());
            set(cgroups, "MemorySwap", &[both, ("memory.swap.max", or_max(swap))])
        }
        (None, _) => Ok(()),
    };
    // The sum may never be below the other on version 1: one of the orders is right.
    set_memory().or_else(|_| set_swap().and_then(|()| set_memory()))?;
    set_swap()?;
    if let Some(bytes) = memory.reservation() {
        let (one, two) = (bytes.to_string(), or_max(bytes));
        let files = [("memory.soft_limit_in_bytes", one), ("memory.low", two)];
        set(cgroups, "MemoryReservation", &files)?;
    }
    Ok(())
}

fn change_cpu(cgroups: &[PathBuf], cpu: &LinuxCpu) -> Result<(), LimitError> {
    if let Some(shares) = cpu.shares() {
        let weight = cpu_weight(shares).to_string();
        set(cgroups, "CpuShares", &[("cpu.shares", shares.to_string()), ("cpu.weight", weight)])?;
    }
    if cpu.quota().is_some() || cpu.period().is_some() {
        change_quota(cgroups, cpu)?;
    }
    if let Some(cpus) = cpu.cpus() {
        set(cgroups, "CpusetCpus", &[("cpuset.cpus", cpus.clone())])?;
    }
    if let Some(mems) = cpu.mems() {
        set(cgroups, "CpusetMems", &[("cpuset.mems", mems.clone())])?;
    }
    Ok(())
}

fn change_quota(cgroups: &[PathBuf], cpu: &LinuxCpu) -> Result<(), LimitError> {
    if let Some(path) = find(cgroups, "cpu.max") {
        // One line holds both: what is not stated is what is there.
        let now = fs::read_to_string(&path).unwrap_or_default();
        let mut words = now.split_whitespace();
        let (quota, period) = (words.next().unwrap_or("max"), words.next().unwrap_or("100000"));
        let quota = match cpu.quota() {
            Some(us) if us > 0 => us.to_string(),
            Some(_) => "max".to_owned(),
            None => quota.to_owned(),
        };
        let period = cpu.period().map_or_else(|| period.to_owned(), |us| us.to_string());
        return write("CpuQuota", &path, format!("{quota} {period}"));
    }
    if let Some(us) = cpu.period() {
        set(cgroups, "CpuPeriod", &[("cpu.cfs_period_us", us.to_string())])?;
    }
    match cpu.quota() {
        Some(us) => set(cgroups, "CpuQuota", &[("cpu.cfs_quota_us", us.to_string())]),
        None => Ok(()),
    }
}

/// From the 2 to 262144 of version 1, where 1024 is usual, to the 1 to 10000 of version 2, where 100
/// is: the curve that passes all three, as the library has it at the start.
fn cpu_weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// Writes to the first of the files that is there.
fn set(
    cgroups: &[PathBuf],
    limit: &'static str,
    files: &[(&'static str, String)],
) -> Result<(), LimitError> {
    for (name, value) in files {
        if let Some(path) = find(cgroups, name) {
            return write(limit, &path, value.clone());
        }
    }
    Err(missing(limit, files.iter().map(|(name, _)| *name)))
}

fn find(cgroups: &[PathBuf], name: &str) -> Option<PathBuf> {
    cgroups.iter().map(|directory| directory.join(name)).find(|path| path.exists())
}

fn missing(limit: &'static str, files: impl Iterator<Item = &'static str>) -> LimitError {
    LimitError::Missing { limit, files: files.collect::<Vec<_>>().join(", ") }
}

fn write(limit: &'static str, path: &Path, value: String) -> Result<(), LimitError> {
    fs::write(path, &value).map_err(|source| LimitError::Refused {
        limit,
        value,
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
