//! A machine of its own, as far as its network goes.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A machine of its own network, held by a process that does nothing.
#[derive(Debug)]
pub struct Machine {
    holder: Child,
}

impl Machine {
    /// One with nothing but its loopback.
    pub fn start() -> Result<Machine> {
        // It speaks once it is in its namespace, and ends with its input.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let mut word = [0; 3];
        let output = holder.stdout.as_mut().context("no output")?;
        std::io::Read::read_exact(output, &mut word).context("the machine did not start")?;
        Ok(Machine { holder })
    }

    /// The process that holds it.
    pub fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// A command on this machine.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid(), "--"]).args(words);
        command
    }

    /// Runs a command; what it writes.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot start nsenter")?;
        if !output.status.success() {
            bail!("`{}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Adds rules to its packet filter.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut child = self.command(&["nft", "-f", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no input")?.write_all(rules.as_bytes())?;
        ensure!(child.wait()?.success(), "nft refused {rules}");
        Ok(())
    }

    /// Whether a page can be had from `address` here.
    pub fn sees(&self, address: &str) -> bool {
        self.run(&["timeout", "2", "busybox", "wget", "-q", "-O", "-", address]).is_ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
