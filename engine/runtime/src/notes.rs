//! libcontainer's errors say what failed but not why; the reason is only in its log events. This hands
//! them to the shim as `note text` lines, also from the processes that libcontainer clones.

use std::fmt::{Debug, Write as _};
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::SendFlags;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Longest note, bytes.
const LIMIT: usize = 1000;

/// Sends error events to a socket.
pub(crate) struct Notes {
    pub(crate) status: RawFd,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, "{name}: {value:?}"),
        };
    }
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut line = format!("note {}", text.0.replace('\n', " "));
        line.truncate(line.floor_char_boundary(LIMIT));
        line.push('\n');
        // SAFETY: the helper keeps this descriptor open for its whole life, and so do its clones.
        let status = unsafe { BorrowedFd::borrow_raw(self.status) };
        let _ = rustix::net::send(status, line.as_bytes(), SendFlags::NOSIGNAL);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
