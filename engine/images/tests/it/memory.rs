//! What a pull leaves in the machine's memory.

use std::fs::File;
use std::io::IoSliceMut;
use std::time::Duration;

use minke_engine_images::{Options, Store};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::disk::Disk;
use crate::pull::{layer, options};
use crate::registry::{Packing, Registry};

const LENGTH: u64 = 48 << 20;
/// Farther apart than the kernel reads ahead when it is asked.
const APART: u64 = 4 << 20;

/// How many of the places that were looked at are in memory.
fn in_memory(file: &File) -> usize {
    let is_here = |at: &u64| {
        let mut byte = [0];
        preadv2(file, &mut [IoSliceMut::new(&mut byte)], *at, ReadWriteFlags::NOWAIT).is_ok()
    };
    (0..LENGTH).step_by(APART as usize).filter(is_here).count()
}

/// Threads of this process that keep a layer that comes.
fn keepers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "images-keep").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_work_on_no_more_layers_than_a_few_do() {
    let registry = Registry::start().await;
    let images: Vec<String> = (0..12).map(|n| format!("acme/app{n}")).collect();
    for (n, image) in images.iter().enumerate() {
        let layers =
            [0, 1, 2].map(|part| (layer(&format!("{n}-{part}"), (2 << 20) + n), Packing::Plain));
        registry.put_image(image, "v1", "amd64", &layers);
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).await.unwrap();
    let pulls = images.iter().map(|image| {
        let (store, reference) = (store.clone(), registry.reference(&format!("{image}:v1")));
        tokio::spawn(async move { store.pull(&reference, &options(), |_| {}).await.unwrap() })
    });
    let pulls: Vec<_> = pulls.collect();
    let mut most = 0;
    while pulls.iter().any(|pull| !pull.is_finished()) {
        most = most.max(keepers());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for pull in pulls {
        pull.await.unwrap();
    }
    assert!((1..=9).contains(&most), "{most} layers at once");
}

#[tokio::test]
async fn a_pulled_layer_does_not_push_what_runs_out_of_memory() {
    let registry = Registry::start().await;
    registry.put_image(
        "acme/app",
        "v1",
        "amd64",
        &[(layer("big", LENGTH as usize), Packing::Plain)],
    );
    let disk = Disk::new(256);
    let store = Store::open(&disk.path, Options::default()).await.unwrap();
    let reference = registry.reference("acme/app:v1");
    let id = store.pull(&reference, &options(), |_| {}).await.unwrap();
    let views = store.lower_dirs(&id).unwrap();
    let file = File::open(views[0].join("data/big")).unwrap();
    let places = (LENGTH / APART) as usize;
    assert!(in_memory(&file) <= places / 4, "{} of {places}", in_memory(&file));
    // The way of looking sees what is there.
    let whole = std::fs::read(views[0].join("data/big")).unwrap();
    assert_eq!((whole.len() as u64, in_memory(&file)), (LENGTH, places));
}
