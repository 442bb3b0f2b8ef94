//! A machine of its own: a kernel of Debian's in QEMU, which computes every instruction by itself
//! (`tcg`: what passes for KVM on some hosts stops an ordinary kernel). Its disk has the programs of
//! these tests, and it runs those tests that it is told.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{debian, tools};

/// How long the machine may take for everything.
const PATIENCE: Duration = Duration::from_secs(900);
/// What the kernel is loaded with before it has a disk.
const INITRAMFS: &str = include_str!("../guest/initramfs.sh");
/// What the machine does with its disk.
const INIT: &str = include_str!("../guest/init.sh");
/// Parts of the kernel that are in files; the rest of them no container can need.
const MODULES: [&str; 9] = [
    "block",
    "drivers/block",
    "drivers/net/dummy.ko",
    "drivers/net/ipvlan",
    "drivers/net/macvlan.ko",
    "drivers/net/veth.ko",
    "drivers/virtio",
    "fs/overlayfs",
    "net",
];

/// How a test in the machine ended, and what it said.
#[derive(Debug)]
pub struct Report {
    pub name: String,
    pub passed: bool,
    pub said: String,
    pub seconds: f64,
}

/// Boots a machine, runs these tests in it one after another, and says how they ended.
pub fn run_in_guest(tests: &[&str]) -> Vec<Report> {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(&dir, tests);
    machine.run()
}

/// Files that a machine is made of.
struct Machine<'a> {
    dir: &'a TempDir,
    kernel: PathBuf,
    qemu: PathBuf,
}

impl Machine<'_> {
    fn new<'a>(dir: &'a TempDir, tests: &[&str]) -> Machine<'a> {
        let tools = tools::unpacked_folder();
        let kernel = debian::unpacked_newest(&tools, "kernel", "linux-image-cloud-amd64");
        let qemu = debian::unpacked_with_needs(&tools, "qemu", "qemu-system-x86");
        let apparmor = debian::unpacked(&tools, "apparmor", &["apparmor"]);
        let machine = Machine { dir, kernel, qemu };
        machine.make_initramfs();
        machine.make_disk(tests, &apparmor);
        machine
    }

    fn version(&self) -> String {
        let mut entries = std::fs::read_dir(self.kernel.join("lib/modules")).unwrap();
        entries.next().unwrap().unwrap().file_name().into_string().unwrap()
    }

    /// Copies modules to a tree, and lists what each needs.
    fn copy_modules(&self, tree: &Path, which: &[&str]) {
        let below = format!("lib/modules/{}", self.version());
        let (from, to) = (self.kernel.join(&below), tree.join(&below));
        for entry in std::fs::read_dir(&from).unwrap().flatten() {
            if entry.path().is_file() {
                copy(&entry.path(), &to.join(entry.file_name()));
            }
        }
        // What several of them need is in `lib` and `crypto`.
        for part in which.iter().chain(&["lib", "crypto", "arch/x86/crypto"]) {
            copy(&from.join("kernel").join(part), &to.join("kernel").join(part));
        }
        let busybox = ["depmod", "-b", tree.to_str().unwrap(), &self.version()];
        tools::run(Command::new("/bin/busybox").args(busybox));
    }

    fn make_initramfs(&self) {
        let tree = self.dir.path().join("initramfs");
        self.copy_modules(&tree, &["drivers/block/virtio_blk.ko", "drivers/virtio"]);
        copy(Path::new("/bin/busybox"), &tree.join("bin/busybox"));
        write_program(&tree.join("init"), INITRAMFS);
        let pack = "find . | busybox cpio -o -H newc > ../initramfs.cpio 2>/dev/null";
        tools::run(Command::new("sh").args(["-c", pack]).current_dir(&tree));
    }

    fn make_disk(&self, tests: &[&str], apparmor: &Path) {
        let tree = self.dir.path().join("disk");
        for directory in ["dev", "proc", "sys", "tmp", "run", "var/tmp", "etc", "mnt"] {
            std::fs::create_dir_all(tree.join(directory)).unwrap();
        }
        self.copy_modules(&tree, &MODULES);
        write_program(&tree.join("init"), INIT);
        std::fs::write(tree.join("tests"), tests.join("\n") + "\n").unwrap();
        let accounts = [("passwd", "root:x:0:0:root:/:/bin/sh\n"), ("group", "root:x:0:\n")];
        for (file, text) in accounts.into_iter().chain([("resolv.conf", ""), ("hosts", "")]) {
            std::fs::write(tree.join("etc").join(file), text).unwrap();
        }
        let it = std::env::current_exe().unwrap();
        let programs = [
            (PathBuf::from("/bin/busybox"), "bin/busybox"),
            (tools::on_path("docker"), "usr/bin/docker"),
            (tools::docker20(), "usr/lib/docker20/docker"),
            // busybox knows less of links.
            (tools::on_path("ip"), "usr/sbin/ip"),
            (tools::on_path("nft"), "usr/sbin/nft"),
            (tools::on_path("script"), "usr/bin/script"),
            (apparmor.join("sbin/apparmor_parser"), "usr/sbin/apparmor_parser"),
            // Where these tests look for one another.
            (it, "minke/debug/deps/it"),
            (tools::engine(), "minke/debug/examples/engine"),
            (tools::shim(), "minke/debug/minke-shim"),
        ];
        for (program, target) in programs {
            copy(&program, &tree.join(target));
            for library in libraries(&program) {
                copy(&library, &tree.join(library.strip_prefix("/").unwrap()));
            }
            // Debugging information is most of such a file.
            let _ = Command::new("strip").arg(tree.join(target)).output();
        }
        let disk = self.dir.path().join("disk.img");
        std::fs::File::create(&disk).unwrap().set_len(2 << 30).unwrap();
        let options = ["-q", "-F", "-O", "^has_journal", "-d"];
        tools::run(Command::new("mkfs.ext4").args(options).arg(&tree).arg(&disk));
        std::fs::remove_dir_all(&tree).unwrap();
    }

    /// Starts the machine and reads its console to the end.
    fn run(&self) -> Vec<Report> {
        let child = self.command().spawn().unwrap();
        let mut running = Running(child);
        let stdout = running.0.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        read_reports(&lines)
    }

    fn command(&self) -> Command {
        let share = self.qemu.join("usr/share");
        let libraries = ["usr/lib", "lib"].map(|folder| {
            let path = self.qemu.join(folder).join("x86_64-linux-gnu");
            path.to_str().unwrap().to_owned()
        });
        let disk = format!(
            "file={},if=virtio,format=raw,cache=unsafe",
            self.dir.path().join("disk.img").display()
        );
        let mut qemu = Command::new(self.qemu.join("usr/bin/qemu-system-x86_64"));
        qemu.env("LD_LIBRARY_PATH", libraries.join(":"))
            .arg("-L")
            .arg(share.join("qemu"))
            .arg("-L")
            .arg(share.join("seabios"))
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"])
            .args(["-nographic", "-no-reboot", "-nic", "none", "-drive", &disk])
            .arg("-kernel")
            .arg(self.kernel.join("boot").join(format!("vmlinuz-{}", self.version())))
            .arg("-initrd")
            .arg(self.dir.path().join("initramfs.cpio"))
            .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        qemu
    }
}

/// The machine's process; it ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads `@@ begin NAME`, what the test says, and `@@ end CODE SECONDS`, until `@@ done`.
fn read_reports(lines: &mpsc::Receiver<String>) -> Vec<Report> {
    let end = Instant::now() + PATIENCE;
    let mut reports: Vec<Report> = Vec::new();
    let mut said = String::new();
    let mut name = String::new();
    loop {
        let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            panic!(
                "the machine ended, or took longer than {PATIENCE:?}: {reports:#?}\n{name}\n{said}"
            );
        };
        // What comes before on the same line is the firmware's.
        if let Some((_, begun)) = line.split_once("@@ begin ") {
            said.clear();
            begun.clone_into(&mut name);
        } else if let Some(ended) = line.strip_prefix("@@ end ") {
            let (code, seconds) = ended.split_once(' ').unwrap();
            reports.push(Report {
                name: std::mem::take(&mut name),
                passed: code == "0",
                said: std::mem::take(&mut said),
                seconds: seconds.parse().unwrap(),
            });
        } else if line == "@@ done" {
            return reports;
        } else {
            said.push_str(&line);
            said.push('\n');
        }
    }
}

/// Copies a file or a folder, with the folders above.
fn copy(from: &Path, to: &Path) {
    let above = to.parent().unwrap();
    std::fs::create_dir_all(above).unwrap();
    tools::run(Command::new("cp").args(["-RL", "--remove-destination"]).arg(from).arg(to));
}

fn write_program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    tools::run(Command::new("chmod").arg("755").arg(path));
}

/// The shared libraries of a program, and what loads them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}
