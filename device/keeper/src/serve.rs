//! The keeper's process: one thread, one client at a time.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tracing::{info, warn};

use crate::host::{Host, Power};
use crate::protocol::{Answer, Line, MAX_LINE, Request, VERSION};

const PATIENCE: Duration = Duration::from_secs(5);

/// Where the keeper is and what it may do.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// The socket it listens on.
    pub socket: PathBuf,
    /// Its own directory.
    pub data: PathBuf,
    /// The file with the boot id.
    pub boot_id: PathBuf,
    /// How the host is restarted.
    pub power: Power,
}

/// Serves until the process is ended.
pub fn run(options: KeeperOptions) -> anyhow::Result<()> {
    fs::create_dir_all(&options.data).context("cannot make the keeper's directory")?;
    let host = Host::open(&options.data, &options.boot_id, options.power);
    let listener = listen(&options.socket)?;
    info!(socket = %options.socket.display(), "the keeper listens");
    serve(&listener, &host);
    Ok(())
}

/// Listens where nobody listens any more; only the owner may connect.
pub(crate) fn listen(socket: &std::path::Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(socket).is_ok() {
        anyhow::bail!("another keeper listens on {}", socket.display());
    }
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(crate) fn serve(listener: &UnixListener, host: &Host) {
    for client in listener.incoming() {
        let served = client.and_then(|client| one(client, host));
        if let Err(error) = served {
            warn!(%error, "a client of the keeper");
        }
    }
}

fn one(client: UnixStream, host: &Host) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new((&client).take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
    let request = serde_json::from_slice::<Line>(&line);
    let answer = match &request {
        Ok(Line { v, .. }) if *v != VERSION => {
            Answer::error(format!("this keeper speaks version {VERSION}"))
        }
        Ok(Line { request, .. }) => answer(request, host),
        Err(error) => Answer::error(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    text.push(b'\n');
    (&client).write_all(&text)?;
    drop(client);
    // After the answer: nothing of this process is left then.
    match request {
        Ok(Line { request: Request::Reboot, .. }) if answer.ok => power(host.reboot()),
        Ok(Line { request: Request::Shutdown, .. }) if answer.ok => power(host.shutdown()),
        _ => {}
    }
    Ok(())
}

fn power(result: Result<(), crate::host::HostError>) {
    if let Err(error) = result {
        warn!(%error, "the power was not cut");
    }
}

fn answer(request: &Request, host: &Host) -> Answer {
    let done = match request {
        Request::Version => return Answer::value(env!("CARGO_PKG_VERSION")),
        Request::Hostname => return Answer::value(host.hostname()),
        Request::BootId => match host.boot_id() {
            Ok(id) => return Answer::value(id),
            Err(error) => Err(error),
        },
        Request::SetHostname { name } => host.set_hostname(name),
        Request::Reboot | Request::Shutdown => host.may_power(),
    };
    match done {
        Ok(()) => Answer::done(),
        Err(error) => Answer::error(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    fn keeper(dir: &std::path::Path) -> Client {
        let boot_id = dir.join("boot-id");
        fs::write(&boot_id, "1234\n").unwrap();
        let host = Host::open(dir, &boot_id, Power::Refuse);
        let socket = dir.join("keeper.sock");
        let listener = listen(&socket).unwrap();
        std::thread::spawn(move || serve(&listener, &host));
        Client::new(&socket)
    }

    #[test]
    fn it_answers_and_refuses_what_it_may_not() {
        let dir = tempfile::tempdir().unwrap();
        let client = keeper(dir.path());
        assert_eq!(client.call(&Request::BootId).unwrap().as_deref(), Some("1234"));
        assert!(client.call(&Request::Version).unwrap().is_some());
        let error = client.call(&Request::Reboot).unwrap_err();
        assert!(error.to_string().contains("may not be restarted"), "{error}");
        let error = client.call(&Request::SetHostname { name: "-x".into() }).unwrap_err();
        assert!(error.to_string().contains("63"), "{error}");
    }

    #[test]
    fn what_is_no_request_is_answered_and_the_next_client_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let client = keeper(dir.path());
        for bad in [
            "\n",
            "{\"v\":1,\"do\":\"fly\"}\n",
            "{\"v\":2,\"do\":\"version\"}\n",
            &"x".repeat(9000),
        ] {
            let mut stream = UnixStream::connect(dir.path().join("keeper.sock")).unwrap();
            // The keeper may close before it has read a line that is too long.
            let _ = stream.write_all(bad.as_bytes());
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() {
                assert!(text.contains("\"ok\":false"), "{bad:.20}: {text}");
            }
        }
        assert!(client.call(&Request::Version).is_ok());
    }

    #[test]
    fn a_damaged_hostname_does_not_keep_the_keeper_from_its_work() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hostname"), b"\0\0\0").unwrap();
        let client = keeper(dir.path());
        assert_eq!(client.call(&Request::BootId).unwrap().as_deref(), Some("1234"));
        let error = client.call(&Request::Reboot).unwrap_err();
        assert!(error.to_string().contains("may not be restarted"), "{error}");
    }

    #[test]
    fn a_hostname_is_set_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        // SAFETY: this thread gets a host name of its own and nothing else.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUTS) }.unwrap();
        let boot_id = dir.path().join("boot-id");
        let host = Host::open(dir.path(), &boot_id, Power::Refuse);
        host.set_hostname("quiet-dawn").unwrap();
        assert_eq!(host.hostname(), "quiet-dawn");
        rustix::system::sethostname(b"other").unwrap();
        let again = Host::open(dir.path(), &boot_id, Power::Refuse);
        assert_eq!(again.hostname(), "quiet-dawn");
    }
}
