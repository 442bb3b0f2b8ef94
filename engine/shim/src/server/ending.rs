//! How sessions end: drained, recorded, told.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use minke_engine_shim::cgroup;
use minke_engine_shim::exit::ExitRecord;
use minke_engine_shim::protocol::{Exit, Failure, Response, Status};

use super::{DRAIN_LIMIT, Phase, Server, session};

/// Reads of an output whose process is gone: far more than a pipe holds, but no child that it left can
/// go on for ever.
const LAST_READS: u32 = 256;

impl Server {
    /// A process is gone: take what it has left to say, then report its end.
    pub(super) fn drain(&mut self, place: usize) {
        let Some((code, signal, at)) = self.sessions[place].gone else { return };
        if self.sessions[place].status == Status::Starting {
            return;
        }
        let main = place == 0;
        let late = at.elapsed() >= DRAIN_LIMIT;
        // What a process leaves in its pipes fits there, so a client with a full queue gets it too: its end
        // waits for nobody.
        for which in 0..2 {
            let mut reads = 0;
            while reads < LAST_READS && self.forward_output(place, which) {
                reads += 1;
            }
        }
        let session = &self.sessions[place];
        // A pipe holds all that was written before the end, so an exec's is drained once it is quiet,
        // though a child that it left may hold it open. A terminal hands on with a delay and says at
        // its end that it is one; so do the pipes of a container without processes.
        let patient = (main || session.tty) && !late;
        if session.has_output() && patient {
            return;
        }
        let oom = main && cgroup::oom_killed(&self.cgroups());
        let session = &mut self.sessions[place];
        session.outputs = [None, None];
        session.input = None;
        session.pending = Vec::new();
        let exit = Exit { code, signal, oom, finished_at: session::now() };
        session.status = Status::Exited;
        session.exit = Some(exit);
        if main {
            self.end(exit, None);
        } else {
            let name = self.sessions[place].name.clone();
            self.release_clients(&name, Some(exit));
        }
    }

    /// Tell those who wait for a session.
    pub(super) fn release_clients(&mut self, name: &str, exit: Option<Exit>) {
        for client in &mut self.clients {
            if let (true, Some(exit)) = (client.waits.iter().any(|waits| waits == name), exit) {
                client.send(&Response::Exited(exit));
            }
            client.waits.retain(|waits| waits != name);
            if client.bound.as_ref().is_some_and(|(bound, _)| bound == name) {
                client.bound = None;
            }
        }
    }

    /// With the container's first process all others were killed.
    fn end_execs(&mut self, container: Exit) {
        for place in 1..self.sessions.len() {
            let session = &mut self.sessions[place];
            if session.exit.is_some() {
                continue;
            }
            let (code, signal) = session.gone.map_or((137, 9), |(code, signal, _)| (code, signal));
            let exit = Exit { code, signal, oom: false, ..container };
            session.status = Status::Exited;
            session.exit = Some(exit);
            let (name, starter) = (session.name.clone(), session.starter.take());
            self.release_clients(&name, Some(exit));
            let failure = Failure::BadState;
            let message = "the container has ended".to_owned();
            if let Some(client) = self.clients.iter_mut().find(|c| Some(c.id) == starter) {
                client.send(&Response::Failed { failure, message });
            }
        }
    }

    pub(super) fn cgroups(&self) -> Vec<PathBuf> {
        cgroup::listed(Path::new("."))
    }

    /// The container has ended, or never began: clean up, record, tell.
    pub(super) fn end(&mut self, exit: Exit, error: Option<String>) {
        if let Some(log) = self.log.take() {
            log.close(exit.finished_at);
        }
        let _ = cgroup::kill_and_remove(&self.cgroups(), Duration::from_secs(5));
        let _ = fs::remove_file("cgroups");
        let _ = fs::remove_dir_all("state");
        let record = ExitRecord { exit, started_at: self.sessions[0].started_at, error };
        let _ = write_record(&record);
        self.end_execs(exit);
        self.release_clients("", Some(exit));
        self.phase = Phase::Ending;
        self.ended_at = Instant::now();
    }
}

fn write_record(record: &ExitRecord) -> io::Result<()> {
    let mut file = File::create("exit.new")?;
    file.write_all(record.print().as_bytes())?;
    file.sync_data()?;
    fs::rename("exit.new", "exit")
}
