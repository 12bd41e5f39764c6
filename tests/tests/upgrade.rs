//! A daemon of another version: with the same layout of the maps it takes over, with another one it leaves what is there alone
//! until it is told to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use runtime_common::maps::{Config, LAYOUT};
use tests::sockets::Talk;
use tests::{HOST, Image, Lab, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// Has the pinned maps be another version's, as far as a loader can tell.
fn set_layout(lab: &Lab, layout: u32) {
    let pin = lab.pins().join("maps/CONFIG");
    let map = Map::Array(MapData::from_pin(&pin).expect("the pin"));
    let mut config: Array<_, Config> = Array::try_from(map).expect("an array");
    let now = config.get(&0, 0).expect("an element");
    config.set(0, Config { layout, ..now }, 0).expect("written");
}

#[test]
fn another_layout_is_left_alone_and_goes_and_comes_without_a_connection_lost() {
    let lab = Lab::builder("another layout").images(&[Image::Echo]).build();
    let server = lab.start("server", &["-p", "8000:7", "echo"]);
    let stranger = lab.start("stranger", &["echo"]);
    let first = lab.up(&[]);
    let mut held = lab.assert_carried(|| Talk::when_up(lab.client(), (HOST, 8000)));
    let mut busy = Talk::open(lab.client(), (HOST, 8000)).expect("a talk");
    let (moved, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                busy.transfer(100_000, |_| ())?;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            std::io::Result::Ok(())
        });
        let goes_on = |what: &str| {
            let seen = moved.load(Ordering::Relaxed);
            wait_until(what, SOON, || moved.load(Ordering::Relaxed) > seen + 1 || running.is_finished());
            assert!(!running.is_finished(), "{what}: the transfer has ended");
        };
        goes_on("the transfer runs");
        first.kill();
        // Up to a newer version, and down to an older one.
        for (kind, layout) in [("an older", LAYOUT - 1), ("a newer", LAYOUT + 1)] {
            set_layout(&lab, layout);
            let told = lab.runtime(["up"]).fails(1);
            for part in [format!("(layout {layout}, this one has {LAYOUT})").as_str(), "runtime down", "goes on"] {
                assert!(told.contains(part), "{kind} version's maps: no {part:?} in {told}");
            }
            // Nothing of it was touched.
            goes_on("the transfer goes on without a daemon");
            lab.assert_carried(|| {
                Talk::open(lab.client(), (HOST, 8000)).expect("a talk").say(b"new").expect("an echo")
            });
            assert!(lab.assert_dropped("not_linked", || stranger.ns().tcp(server.at(7))).is_err());
            lab.down();
            goes_on("the transfer goes on by the Engine's rules");
            let next = lab.up(&[]);
            goes_on("the transfer goes on under the next version");
            held.say(b"still there").expect("an echo");
            lab.assert_carried(|| {
                Talk::open(lab.client(), (HOST, 8000)).expect("a talk").say(b"new").expect("an echo")
            });
            next.kill();
        }
        over.store(true, Ordering::Relaxed);
        running.join().expect("the transfer's thread").expect("the transfer");
    });
}
