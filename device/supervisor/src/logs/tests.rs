use bytes::Bytes;

use super::*;

fn chunk(source: LogSource, text: &str) -> LogChunk {
    LogChunk { source, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

#[test]
fn lines_are_put_together_from_any_pieces() {
    let text = "2026-11-21T04:00:00.000000001Z one\r\n2026-11-21T04:00:01.5Z two words\n2026-11-21T04:00:02Z \n";
    let expected = [
        (1_795_233_600_000_000_001, "one"),
        (1_795_233_601_500_000_000, "two words"),
        (1_795_233_602_000_000_000, ""),
    ];
    for size in [1, 2, 7, 40, 1000] {
        let mut lines = Lines::default();
        for piece in text.as_bytes().chunks(size) {
            lines.feed(&chunk(LogSource::Stdout, std::str::from_utf8(piece).unwrap()));
        }
        let whole: Vec<_> = lines.whole();
        let found: Vec<_> = whole.iter().map(|l| (l.nanoseconds, l.message.as_str())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_streams_do_not_mix_and_the_last_line_needs_no_end() {
    let mut lines = Lines::default();
    lines.feed(&chunk(LogSource::Stdout, "2026-11-21T04:00:00Z out"));
    lines.feed(&chunk(LogSource::Stderr, "2026-11-21T04:00:01Z err\n"));
    assert_eq!(lines.whole().len(), 1);
    let rest = lines.rest();
    assert_eq!((rest[0].source, rest[0].message.as_str()), (LogSource::Stdout, "out"));
}

mod following {
    use std::path::Path;

    use minke_device_cloud_client::{CloudHttp, ConfigFile, LogStream, SoftwareVersions};

    use super::super::*;
    use crate::reconcile::tests::world::{World, weather};

    /// A sink whose lines stay on disk: nobody sends them.
    fn sink(dir: &Path) -> (LogStream, LogSink) {
        let versions = SoftwareVersions {
            supervisor: String::new(),
            os_version: String::new(),
            os_variant: String::new(),
        };
        let config = ConfigFile::open(&dir.join("config.json")).unwrap();
        let http = CloudHttp::new(config, versions).unwrap();
        LogStream::new(http, "aabb".parse().unwrap(), &dir.join("spool"))
    }

    fn spooled(dir: &Path) -> Vec<serde_json::Value> {
        let mut paths: Vec<_> =
            std::fs::read_dir(dir.join("spool")).unwrap().flatten().map(|e| e.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
        paths.sort();
        let text: String =
            paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn wait_for(dir: &Path, count: usize) -> Vec<serde_json::Value> {
        let waited = async {
            while spooled(dir).len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
        assert!(waited.is_ok(), "{:?}", spooled(dir));
        spooled(dir)
    }

    /// The engine in memory keeps lines as they are: the time is the test's to write.
    fn say(world: &World, id: &str, source: LogSource, second: u32, text: &str) {
        world.engine.say(id, source, &format!("2026-11-21T04:00:{second:02}Z {text}"));
    }

    fn collector(world: &World, sink: &LogSink) -> tokio::task::JoinHandle<()> {
        let wanted = Arc::new(AtomicBool::new(true));
        let path = world.path().join("log-cursors");
        let status = world.status.subscribe();
        tokio::spawn(
            LogCollector::new(
                world.engine.clone(),
                sink.clone(),
                status,
                wanted,
                path,
                world.followed.clone(),
            )
            .run(),
        )
    }

    #[tokio::test]
    async fn what_services_say_is_taken_also_what_was_said_while_nobody_listened() {
        let world = World::new();
        world.want("c1", weather("web1"));
        world.settled().await;
        let web = world.id_of("web").await;
        say(&world, &web, LogSource::Stdout, 1, "before");
        let (_stream, sink) = sink(world.path());
        let task = collector(&world, &sink);
        wait_for(world.path(), 1).await;
        say(&world, &web, LogSource::Stdout, 2, "live");
        let lines = wait_for(world.path(), 2).await;
        assert_eq!(lines[0]["message"], "before");
        assert_eq!(lines[0]["serviceId"], 1);
        assert!(lines[0].get("isSystem").is_none());

        // The supervisor dies; what is said meanwhile is taken by the next, and nothing is lost.
        task.abort();
        let _ = task.await;
        say(&world, &web, LogSource::Stdout, 3, "meanwhile");
        let task = collector(&world, &sink);
        let said =
            |lines: &[serde_json::Value]| lines.iter().any(|line| line["message"] == "meanwhile");
        tokio::time::timeout(Duration::from_secs(60), async {
            while !said(&spooled(world.path())) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        task.abort();
    }

    #[tokio::test]
    async fn what_is_said_after_the_clock_went_back_is_taken() {
        let world = World::new();
        world.want("c1", weather("web1"));
        world.settled().await;
        let web = world.id_of("web").await;
        // Taken before the device was switched off, when its clock was far ahead of what it is now.
        let ahead: jiff::Timestamp = "2200-01-01T00:00:00Z".parse().unwrap();
        let cursors = Cursors::from([(web.clone(), ahead.as_nanosecond())]);
        let saved = serde_json::to_vec(&cursors).unwrap();
        std::fs::write(world.path().join("log-cursors"), saved).unwrap();
        world.engine.say(&web, LogSource::Stdout, &format!("{ahead} taken before"));
        let (_stream, sink) = sink(world.path());
        let task = collector(&world, &sink);
        let now = jiff::Timestamp::now;
        world.engine.say(&web, LogSource::Stdout, &format!("{} of this boot", now()));
        wait_for(world.path(), 1).await;
        world.engine.say(&web, LogSource::Stdout, &format!("{} and more", now()));
        let lines = wait_for(world.path(), 2).await;
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["of this boot", "and more"]);
        task.abort();
    }

    #[tokio::test]
    async fn the_last_words_of_a_container_are_taken_and_only_once() {
        let world = World::new();
        world.want("c1", weather("web1"));
        world.settled().await;
        let once = world.id_of("once").await;
        let (_stream, sink) = sink(world.path());
        let task = collector(&world, &sink);
        say(&world, &once, LogSource::Stderr, 4, "first");
        wait_for(world.path(), 1).await;
        say(&world, &once, LogSource::Stderr, 5, "last");
        world.engine.exit(&once, 0);
        wait_for(world.path(), 2).await;
        // Looks that find it ended do not take it again.
        for _ in 0..3 {
            let round = world.status.borrow().round;
            world.wake.notify_one();
            world.status.subscribe().wait_for(|status| status.round > round).await.unwrap();
        }
        let db = world.id_of("db").await;
        say(&world, &db, LogSource::Stdout, 6, "after");
        let lines = wait_for(world.path(), 3).await;
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["first", "last", "after"]);
        task.abort();
    }

    #[tokio::test]
    async fn an_update_waits_for_the_last_words_of_what_it_removes() {
        let world = World::new();
        let (_stream, sink) = sink(world.path());
        let task = collector(&world, &sink);
        world.want("c1", weather("web1"));
        world.settled().await;
        let web = world.id_of("web").await;
        for second in 0..40 {
            say(&world, &web, LogSource::Stdout, second, &format!("word {second}"));
        }
        world.want("c2", weather("web2"));
        world.settled().await;
        assert_ne!(world.id_of("web").await, web);
        let lines = wait_for(world.path(), 40).await;
        assert_eq!(lines[39]["message"], "word 39");
        task.abort();
    }
}
