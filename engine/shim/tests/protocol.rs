//! Laws of the frames, attacked with generated values and bytes.

use minke_engine_shim::config::{DnsConfig, LogConfig, ShimConfig};
use minke_engine_shim::exit::ExitRecord;
use minke_engine_shim::log::Format;
use minke_engine_shim::protocol::{
    self, Exit, Failure, MAX_FRAME, Request, Response, SessionState, Size, Status, Streams,
};
use proptest::prelude::*;

fn session() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{0,128}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..2000)
}

fn streams() -> impl Strategy<Value = Streams> {
    any::<[bool; 3]>().prop_map(|[stdin, stdout, stderr]| Streams { stdin, stdout, stderr })
}

fn size() -> impl Strategy<Value = Size> {
    any::<(u16, u16)>().prop_map(|(columns, rows)| Size { columns, rows })
}

fn exit() -> impl Strategy<Value = Exit> {
    any::<(u32, u8, bool, u64)>().prop_map(|(code, signal, oom, finished_at)| Exit {
        code,
        signal,
        oom,
        finished_at,
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any::<u16>().prop_map(|version| Request::Hello { version }),
        Just(Request::Start),
        (session(), streams()).prop_map(|(session, streams)| Request::Attach { session, streams }),
        (session(), bytes(), any::<bool>(), streams(), prop::option::of(size())).prop_map(
            |(session, process, tty, streams, size)| Request::Exec {
                session,
                process,
                tty,
                streams,
                size
            }
        ),
        bytes().prop_map(Request::Stdin),
        Just(Request::StdinEnd),
        (session(), size()).prop_map(|(session, size)| Request::Resize { session, size }),
        (session(), any::<u8>()).prop_map(|(session, signal)| Request::Signal { session, signal }),
        session().prop_map(|session| Request::State { session }),
        session().prop_map(|session| Request::Forget { session }),
        session().prop_map(|session| Request::Wait { session }),
        Just(Request::Stop),
    ]
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Created),
        Just(Status::Starting),
        Just(Status::Running),
        Just(Status::Exited)
    ]
}

fn response() -> impl Strategy<Value = Response> {
    prop_oneof![
        any::<(u16, u32)>().prop_map(|(version, pid)| Response::Hello { version, pid }),
        Just(Response::Ok),
        (1_u8..=7, ".{0,200}").prop_map(|(number, message)| Response::Failed {
            failure: Failure::from_number(number).unwrap(),
            message
        }),
        any::<u32>().prop_map(|pid| Response::Started { pid }),
        Just(Response::Attached),
        bytes().prop_map(Response::Stdout),
        bytes().prop_map(Response::Stderr),
        (status(), any::<u32>(), any::<u64>(), prop::option::of(exit())).prop_map(
            |(status, pid, started_at, exit)| Response::State(SessionState {
                status,
                pid,
                started_at,
                exit
            })
        ),
        exit().prop_map(Response::Exited),
    ]
}

/// A path without line feeds; what a path may hold otherwise is anybody's choice.
fn path() -> impl Strategy<Value = std::path::PathBuf> {
    "/[^\n\0]{1,40}".prop_map(Into::into)
}

fn config() -> impl Strategy<Value = ShimConfig> {
    let format = prop_oneof![Just(Format::JsonFile), Just(Format::Local)];
    let marks = prop_oneof![Just(String::new()), "\\{[^\n]{1,40}\\}"];
    let numbers = (any::<u64>(), 1_u32..=1000, any::<u64>());
    let log = (path(), numbers, format, any::<bool>(), marks).prop_map(
        |(path, (max_size, max_files, buffer), format, compress, marks)| LogConfig {
            path,
            max_size,
            max_files,
            format,
            compress,
            marks,
            buffer,
        },
    );
    let dns = (path(), path(), any::<u16>()).prop_map(|(netns, sources, port)| DnsConfig {
        netns,
        sources,
        port,
    });
    let flags = any::<[bool; 3]>();
    ("[a-z0-9]{1,64}", path(), path(), flags, prop::option::of(log), prop::option::of(dns))
        .prop_map(|(id, runtime, bundle, [tty, stdin, stdin_once], log, dns)| ShimConfig {
            id,
            runtime,
            bundle,
            tty,
            stdin,
            stdin_once,
            log,
            dns,
        })
}

proptest! {
    #[test]
    fn requests_round_trip_in_a_stream(list in prop::collection::vec(request(), 1..6), cut in any::<prop::sample::Index>()) {
        let mut stream = Vec::new();
        for request in &list {
            request.encode(&mut stream);
        }
        // However much of the stream is there, whole frames come out, and only those.
        let there = &stream[..cut.index(stream.len() + 1)];
        let (mut at, mut read) = (0, Vec::new());
        while let Some((frame, length)) = protocol::next_frame(&there[at..]).unwrap() {
            read.push(Request::decode(frame).unwrap());
            at += length;
        }
        prop_assert_eq!(&list[..read.len()], &read[..]);
        prop_assert!(there.len() < stream.len() || read.len() == list.len());
    }

    #[test]
    fn responses_round_trip(response in response()) {
        let mut stream = Vec::new();
        response.encode(&mut stream);
        let (frame, length) = protocol::next_frame(&stream).unwrap().unwrap();
        prop_assert_eq!(length, stream.len());
        prop_assert_eq!(Response::decode(frame).unwrap(), response);
    }

    #[test]
    fn no_bytes_make_the_decoders_panic_or_read_what_was_not_written(frame in prop::collection::vec(any::<u8>(), 1..300)) {
        if let Ok(request) = Request::decode(&frame) {
            let mut again = Vec::new();
            request.encode(&mut again);
            prop_assert_eq!(&again[4..], &frame[..]);
        }
        let _ = Response::decode(&frame);
        let _ = protocol::next_frame(&frame);
    }

    #[test]
    fn configurations_round_trip(config in config()) {
        prop_assert_eq!(ShimConfig::parse(&config.print().unwrap()).unwrap(), config);
    }

    #[test]
    fn exit_records_round_trip(exit in exit(), started_at in any::<u64>(), error in prop::option::of("[^\n]{0,200}")) {
        let record = ExitRecord { exit, started_at, error };
        prop_assert_eq!(ExitRecord::parse(&record.print()), Some(record.clone()));
        // Half a record, as after a power cut, is none.
        let text = record.print();
        let end = text.char_indices().next_back().map_or(0, |(at, _)| at);
        prop_assert_eq!(ExitRecord::parse(&text[..end]), None);
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_is_read() {
    let length = (MAX_FRAME as u32 + 1).to_le_bytes();
    assert_eq!(protocol::next_frame(&length), Err(protocol::DecodeError::BadLength));
    assert_eq!(protocol::next_frame(&[0; 4]), Err(protocol::DecodeError::BadLength));
}

/// Version 1 as it went out: a shim of this version is talked to by every later daemon.
#[test]
fn version_1_is_what_it_was() {
    let mut bytes = Vec::new();
    Request::Hello { version: 1 }.encode(&mut bytes);
    Request::Attach { session: "x".into(), streams: Streams::ALL }.encode(&mut bytes);
    Request::Resize { session: String::new(), size: Size { columns: 80, rows: 24 } }
        .encode(&mut bytes);
    Response::Exited(Exit { code: 137, signal: 9, oom: true, finished_at: 5 }).encode(&mut bytes);
    let golden: [&[u8]; 4] = [
        &[3, 0, 0, 0, 1, 1, 0],
        &[5, 0, 0, 0, 3, 1, 0, b'x', 7],
        &[7, 0, 0, 0, 7, 0, 0, 80, 0, 24, 0],
        &[15, 0, 0, 0, 136, 137, 0, 0, 0, 9, 1, 5, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(bytes, golden.concat());
    let record = ExitRecord {
        exit: Exit { code: 0, signal: 0, oom: false, finished_at: 20 },
        started_at: 10,
        error: None,
    };
    assert_eq!(record.print(), "v1 code=0 signal=0 oom=0 started=10 finished=20\n");
}
