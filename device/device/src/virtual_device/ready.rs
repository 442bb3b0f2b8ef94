//! When a device counts as ready: its engine and its device API answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the engine at the socket answers a ping.
pub fn engine_answers(socket: &Path) -> bool {
    let asked = UnixStream::connect(socket).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        ask(stream, "/_ping")
    });
    asked.unwrap_or(false)
}

/// Whether the device API answers a ping.
pub fn supervisor_answers(address: Ipv4Addr, port: u16) -> bool {
    let address = SocketAddr::from((address, port));
    let asked = TcpStream::connect_timeout(&address, PATIENCE).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        ask(stream, "/ping")
    });
    asked.unwrap_or(false)
}

fn ask(mut stream: impl Read + Write, path: &str) -> io::Result<bool> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: device\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(&head[9..] == b"200")
}
