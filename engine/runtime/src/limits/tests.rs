use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxPidsBuilder, LinuxResourcesBuilder,
    LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};

use super::*;

/// A directory with these empty files, as a cgroup has them.
fn cgroup(files: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(dir.path().join(file), "").unwrap();
    }
    let list = vec![dir.path().join("elsewhere"), dir.path().to_owned()];
    (dir, list)
}

fn read(list: &[PathBuf], name: &str) -> String {
    fs::read_to_string(list[1].join(name)).unwrap()
}

fn block() -> LinuxBlockIo {
    let disk = LinuxWeightDeviceBuilder::default().major(8).minor(1).weight(20_u16);
    let rate = LinuxThrottleDeviceBuilder::default().major(8).minor(1).rate(77_u64);
    LinuxBlockIoBuilder::default()
        .weight(1000_u16)
        .weight_device(vec![disk.build().unwrap()])
        .throttle_write_iops_device(vec![rate.build().unwrap()])
        .build()
        .unwrap()
}

#[test]
fn block_limits_of_version_1_have_a_file_each() {
    let files = ["blkio.bfq.weight", "blkio.bfq.weight_device", READ_BPS.file, WRITE_IOPS.file];
    let (_dir, list) = cgroup(&files);
    let all = BlockSupport { weight: true, weight_device: true, throttle: true };
    assert_eq!(block_support(&list), all);
    set_block(&list, &block()).unwrap();
    assert_eq!(read(&list, "blkio.bfq.weight"), "1000");
    assert_eq!(read(&list, "blkio.bfq.weight_device"), "8:1 20");
    assert_eq!(read(&list, WRITE_IOPS.file), "8:1 77");
}

#[test]
fn weights_of_version_2_are_larger_and_rates_have_words() {
    let (_dir, list) = cgroup(&["io.weight", "io.max"]);
    let only_weight = LinuxBlockIoBuilder::default().weight(1000_u16).build().unwrap();
    set_block(&list, &only_weight).unwrap();
    assert_eq!(read(&list, "io.weight"), "10000");
    set_block(&list, &block()).unwrap();
    assert_eq!(read(&list, "io.weight"), "8:1 102");
    assert_eq!(read(&list, "io.max"), "8:1 wiops=77");
    assert_eq!([scaled(10), scaled(500), scaled(1000)], [1, 4950, 10000]);
}

#[test]
fn a_limit_that_the_kernel_lacks_is_named() {
    let (_dir, list) = cgroup(&["io.max"]);
    let support = BlockSupport { throttle: true, ..BlockSupport::default() };
    assert_eq!(block_support(&list), support);
    let error = set_block(&list, &block()).unwrap_err();
    assert!(error.to_string().starts_with("BlkioWeight: the kernel has none of"), "{error}");
}

#[test]
fn what_is_not_stated_of_a_quota_stays() {
    let (_dir, list) = cgroup(&["cpu.max", "cpu.weight", "pids.max"]);
    fs::write(list[1].join("cpu.max"), "max 50000\n").unwrap();
    let change = |cpu: LinuxCpuBuilder, pids: i64| {
        let pids = LinuxPidsBuilder::default().limit(pids).build().unwrap();
        let limits = LinuxResourcesBuilder::default().cpu(cpu.build().unwrap()).pids(pids);
        change(&list, &limits.build().unwrap()).unwrap();
    };
    change(LinuxCpuBuilder::default().quota(7000).shares(512_u64), 9);
    assert_eq!(read(&list, "cpu.max"), "7000 50000");
    assert_eq!((read(&list, "cpu.weight"), read(&list, "pids.max")), ("59".into(), "9".into()));
    change(LinuxCpuBuilder::default().quota(-1), -1);
    assert_eq!(
        (read(&list, "cpu.max"), read(&list, "pids.max")),
        ("max 50000".into(), "max".into())
    );
    assert_eq!([2, 1024, 262_144].map(cpu_weight), [1, 100, 10_000]);
}

#[test]
fn swap_is_counted_alone_on_version_2() {
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(100)).set_swap(Some(150)).set_reservation(Some(50));
    let (_dir, list) = cgroup(&["memory.max", "memory.swap.max", "memory.low"]);
    change_memory(&list, &memory).unwrap();
    let all = ["memory.max", "memory.swap.max", "memory.low"].map(|name| read(&list, name));
    assert_eq!(all, ["100", "50", "50"]);
    memory.set_swap(Some(-1));
    change_memory(&list, &memory).unwrap();
    assert_eq!(read(&list, "memory.swap.max"), "max");
}
