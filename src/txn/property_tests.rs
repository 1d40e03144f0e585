//! The property test of transactions: random producers, zombies among them, a random disk, random clocks, and
//! processes that die at any moment, with any part of what was under way on the disk.
//!
//! The partitions' logs are modelled: batches and markers in order, and the writer's refusal of what comes too late. It
//! must hold: nobody is answered twice; all that was written in one transaction ends the same way, and as its producer
//! was told; an id's epochs only rise; and once the disk works and time passes, everybody is answered and nothing is
//! left open.
//!
//! OTTLA_SEED runs one seed again.

use super::testing::{Scene, Way};
use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const IDS: usize = 2;
const PRODUCERS: usize = 5;
const PARTITIONS: i32 = 3;
const STEPS: usize = 4_000;

/// What one producer wrote between two ends.
type Tag = (usize, u32);

/// What a producer waits for.
#[derive(Clone, Debug)]
struct Asked {
    waiter: u32,
    request: Request,
}

struct Client {
    id: String,
    me: Option<(i64, i16)>,
    bumps: bool,
    tag: u32,
    asked: Option<Asked>,
    /// To be asked again until it is answered for good.
    again: Option<Request>,
    /// A batch that is still on its way to the writer.
    late: Option<(i32, Serial, (i64, i16), u32)>,
}

#[derive(Default)]
struct Log {
    /// By producer id: what is open.
    open: BTreeMap<i64, (i16, BTreeSet<Tag>)>,
    /// By producer id: batches of transactions up to this one come too late.
    last_marked: HashMap<i64, Serial>,
}

struct World {
    rng: StdRng,
    scene: Scene,
    clients: Vec<Client>,
    logs: Vec<Log>,
    /// How what was written ended, and how its producer was told that it would.
    ended: HashMap<Tag, bool>,
    promised: HashMap<Tag, bool>,
    seen_marks: usize,
    epochs: HashMap<Vec<u8>, (i64, i16)>,
}

impl World {
    fn new(seed: u64) -> World {
        let client = |n| Client {
            id: format!("id{}", n % IDS),
            me: None,
            bumps: false,
            tag: 0,
            asked: None,
            again: None,
            late: None,
        };
        World {
            rng: StdRng::seed_from_u64(seed),
            scene: Scene::new(),
            clients: (0..PRODUCERS).map(client).collect(),
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            ended: HashMap::new(),
            promised: HashMap::new(),
            seen_marks: 0,
            epochs: HashMap::new(),
        }
    }

    fn step(&mut self) {
        let who = self.rng.random_range(0..PRODUCERS);
        match self.rng.random_range(0..100) {
            0..45 => self.act(who),
            45..50 => self.write_late(who),
            50..93 => {
                let result = match self.rng.random_bool(0.9) {
                    true => Ok(()),
                    false => Err(ErrorCode::KafkaStorageError),
                };
                self.settle_one(result);
            }
            93 => self.scene.with(|known, env| known.restate(|_| true, env)),
            94..98 => {
                let ms = [1, 500, 5_000, 30_000][self.rng.random_range(0..4)];
                self.scene.pass(ms);
            }
            98 => {
                // The wall clock jumps; broker time may follow, and ids may expire.
                self.scene.time_ms += self.rng.random_range(0..700_000_000);
            }
            _ => self.restart(),
        }
        self.hear();
        self.check();
    }

    /// Something is synced or refused: any, but in order within each log.
    fn settle_one(&mut self, result: Result<(), ErrorCode>) {
        let under_way = &self.scene.under_way;
        if under_way.is_empty() {
            return;
        }
        let place = self.rng.random_range(0..under_way.len());
        let lane = lane(&under_way[place]);
        let first = under_way.iter().position(|way| self::lane(way) == lane);
        self.scene.settle_at(first.unwrap_or(place), result);
        self.end_what_was_marked();
    }

    fn end_what_was_marked(&mut self) {
        for mark in &self.scene.marks[self.seen_marks..] {
            let log = &mut self.logs[mark.partition.1 as usize];
            let last = log.last_marked.entry(mark.producer_id);
            let last = last.or_insert(mark.serial);
            *last = (*last).max(mark.serial);
            let Some((_, tags)) = log.open.remove(&mark.producer_id) else {
                continue;
            };
            for tag in tags {
                let before = self.ended.insert(tag, mark.commit);
                assert!(
                    before.is_none_or(|before| before == mark.commit),
                    "{tag:?} is torn"
                );
            }
        }
        self.seen_marks = self.scene.marks.len();
    }

    fn restart(&mut self) {
        // Of each log a part of what was under way had reached the disk.
        let mut torn = BTreeSet::new();
        for way in std::mem::take(&mut self.scene.under_way) {
            if !torn.contains(&lane(&way)) && self.rng.random() {
                self.scene.write(&way);
            } else {
                torn.insert(lane(&way));
            }
        }
        self.end_what_was_marked();
        let logs = self.logs.iter().zip(0..);
        let log_open = logs.flat_map(|(log, index)| {
            let open = log.open.iter();
            open.map(move |(id, (epoch, _))| ((Arc::from("t"), index), *id, *epoch))
        });
        let log_open = log_open.collect();
        self.logs.iter_mut().for_each(|log| log.last_marked.clear());
        for client in &mut self.clients {
            client.late = None;
            // Its connection broke: it cannot know what became of its request.
            if let Some(asked) = client.asked.take() {
                client.again = Some(asked.request);
            }
        }
        self.scene.restart(log_open);
    }

    fn act(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if client.asked.is_some() {
            return;
        }
        let request = match (client.again.take(), client.me) {
            (Some(request), _) => request,
            (None, None) => Request::Init {
                transactional_id: client.id.clone(),
                timeout_ms: 20_000,
                expected: None,
            },
            (None, Some((id, epoch))) => {
                let producer = Producer {
                    transactional_id: client.id.clone(),
                    id,
                    epoch,
                };
                match self.rng.random_range(0..10) {
                    0..6 => Request::Enlist {
                        producer,
                        partitions: vec![("t".into(), self.rng.random_range(0..PARTITIONS))],
                        bumps: client.bumps,
                    },
                    6..9 => Request::End {
                        producer,
                        commit: self.rng.random(),
                        bumps: client.bumps,
                    },
                    _ if self.rng.random_bool(0.3) => Request::Init {
                        transactional_id: client.id.clone(),
                        timeout_ms: 20_000,
                        expected: Some((id, epoch)).filter(|_| self.rng.random()),
                    },
                    _ => return,
                }
            }
        };
        // A bad network brings it twice, and the first answer is lost.
        if self.rng.random_bool(0.1) {
            self.scene.ask(request.clone());
        }
        let waiter = self.scene.ask(request.clone());
        self.clients[who].asked = Some(Asked { waiter, request });
    }

    /// Everybody takes the answers that are there.
    fn hear(&mut self) {
        for who in 0..PRODUCERS {
            let client = &mut self.clients[who];
            let Some(asked) = client.asked.take() else {
                continue;
            };
            let Some(response) = self.scene.answers.get(&asked.waiter).cloned() else {
                client.asked = Some(asked);
                continue;
            };
            let is_unclear = |code| {
                matches!(
                    code,
                    ErrorCode::CoordinatorNotAvailable | ErrorCode::ConcurrentTransactions
                )
            };
            match (response, asked.request) {
                (
                    Response::Init(Err(code))
                    | Response::Enlisted(Err(code))
                    | Response::Ended(Err(code)),
                    request,
                ) if is_unclear(code) => client.again = Some(request),
                (Response::Init(Ok(me)), _) => {
                    client.me = Some(me);
                    client.bumps = self.rng.random();
                    client.tag += 1;
                }
                (Response::Enlisted(Ok(serial)), Request::Enlist { partitions, .. }) => {
                    let me = client.me.expect("an id");
                    let batch = (partitions[0].1, serial, me, client.tag);
                    match self.rng.random_bool(0.2) {
                        true => client.late = Some(batch),
                        false => self.write(who, batch),
                    }
                }
                (Response::Ended(Ok(me)), Request::End { commit, bumps, .. }) => {
                    self.promised.insert((who, client.tag), commit);
                    client.tag += 1;
                    if bumps {
                        client.me = Some(me);
                    }
                    client.bumps = self.rng.random();
                }
                // Fenced, or forgotten, or nothing to commit: it begins anew.
                (_, _) => (client.me, client.tag) = (None, client.tag + 1),
            }
        }
    }

    fn write_late(&mut self, who: usize) {
        if let Some(batch) = self.clients[who].late.take() {
            self.write(who, batch);
        }
    }

    /// A batch reaches the writer, which refuses what comes too late.
    fn write(&mut self, who: usize, batch: (i32, Serial, (i64, i16), u32)) {
        let (index, serial, (id, epoch), tag) = batch;
        let log = &mut self.logs[index as usize];
        if log.last_marked.get(&id).is_some_and(|last| serial <= *last) {
            return;
        }
        let (_, tags) = log.open.entry(id).or_insert((epoch, BTreeSet::new()));
        tags.insert((who, tag));
    }

    fn check(&mut self) {
        for (tag, commit) in &self.promised {
            if let Some(ended) = self.ended.get(tag) {
                assert_eq!(ended, commit, "{tag:?} did not end as promised");
            }
        }
        for (key, value) in &self.scene.log {
            let (_, known) = records::decode(key, Some(value)).unwrap().unwrap();
            let known = known.unwrap();
            let now = (known.producer_id, known.epoch);
            let before = self.epochs.insert(key.clone(), now);
            assert!(
                before.is_none_or(|before| before <= now),
                "{before:?} {now:?}"
            );
        }
    }

    /// The disk works again, and time passes.
    fn come_to_rest(&mut self) {
        for _ in 0..8 {
            for client in &mut self.clients {
                // Who gives up does not know what became of its transaction, and begins anew.
                if client.again.take().is_some() {
                    (client.me, client.tag) = (None, client.tag + 1);
                }
            }
            while !self.scene.under_way.is_empty() {
                self.settle_one(Ok(()));
            }
            self.scene.pass(10_001);
            self.hear();
            self.check();
        }
        assert_eq!(self.scene.under_way.len(), 0);
        for (who, client) in self.clients.iter().enumerate() {
            assert!(client.asked.is_none(), "{who} waits: {:?}", client.asked);
        }
        for log in &self.logs {
            assert!(log.open.is_empty(), "left open: {:?}", log.open);
        }
    }
}

fn lane(way: &Way) -> i32 {
    match way {
        Way::Record(..) => -1,
        Way::Mark(_, mark) => mark.partition.1,
    }
}

#[test]
fn transactions_end_whole_whatever_happens() {
    let seed: u64 = match std::env::var("OTTLA_SEED") {
        Ok(text) => text.parse().expect("OTTLA_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("OTTLA_SEED={seed}");
    let mut committed = 0;
    for round in 0..6 {
        let mut world = World::new(seed.wrapping_add(round));
        for step in 0..STEPS {
            world.step();
            if step % 500 == 499 {
                world.come_to_rest();
            }
        }
        committed += world.ended.values().filter(|commit| **commit).count();
    }
    assert!(committed > 20, "it hardly did anything: {committed}");
}
