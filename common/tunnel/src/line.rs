//! Reading one line from a stream without taking a byte behind it.

use std::io;

use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::MAX_LINE;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The stream broke.
    #[error("the stream broke before its first line ended")]
    Broken(#[source] io::Error),
    /// The stream ended.
    #[error("the stream ended before its first line did")]
    Ended,
    /// The line has no end in sight.
    #[error("the first line of a stream has at most {MAX_LINE} bytes")]
    TooLong,
}

/// Reads up to the first line feed, which is taken and not returned.
///
/// Byte by byte, because what follows belongs to somebody else; the streams of a tunnel keep
/// what arrived in memory, so this costs no system call.
pub async fn read_line(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, LineError> {
    let mut line = Vec::with_capacity(64);
    let mut byte = [0];
    loop {
        match stream.read(&mut byte).await.map_err(LineError::Broken)? {
            0 => return Err(LineError::Ended),
            _ if byte[0] == b'\n' => return Ok(line),
            _ if line.len() + 1 >= MAX_LINE => return Err(LineError::TooLong),
            _ => line.push(byte[0]),
        }
    }
}

/// Writes `line` and a line feed.
pub async fn write_line(stream: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn read(bytes: &[u8]) -> (Result<Vec<u8>, LineError>, usize) {
        let mut rest = bytes;
        let line = read_line(&mut rest).now_or_never().unwrap();
        (line, rest.len())
    }

    #[test]
    fn takes_the_line_and_nothing_more() {
        let (line, rest) = read(b"abc\nSSH-2.0");
        assert_eq!((line.unwrap().as_slice(), rest), (b"abc".as_slice(), 7));
    }

    #[test]
    fn has_a_limit() {
        let longest = [vec![b'x'; MAX_LINE - 1], vec![b'\n']].concat();
        assert!(read(&longest).0.is_ok());
        let longer = [vec![b'x'; MAX_LINE], vec![b'\n']].concat();
        assert!(matches!(read(&longer).0, Err(LineError::TooLong)));
        assert!(matches!(read(b"no end").0, Err(LineError::Ended)));
    }
}
