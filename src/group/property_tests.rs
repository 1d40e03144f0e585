//! The property test of groups: random clients, a random disk, random clocks, and what must hold after each step.
//!
//! [`World`] is a model of the driver: a step whose records are refused never was, events wait while a commit is
//! under way, a restart knows the records alone. [`Machine`] and [`Client`] are what a protocol brings along.
//!
//! After each step: nobody is answered twice; who waits is waited for by a timer; no partition has two owners; the
//! generation does not fall, over a restart not below the last one in which the group had come to rest. Now and then
//! all input stops, and the group must come to rest with everyone answered; or all clients behave, and must come to
//! rest as members of one generation.
//!
//! OTTLA_SEED runs one seed again, OTTLA_GROUP_STEPS changes the number of steps.

mod classic;

use super::records::Record;
use super::{Ask, Asker, Effects, Env, Event, Told};
use crate::catalog::State;
use crate::config::Config;
use crate::error::ErrorCode;
use crate::wire::Uuid;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Names the request that is to be answered.
pub type Waiter = u64;

/// A group's state machine.
pub trait Machine: Clone {
    /// What its clients are.
    type Client: Client;
    /// What is remembered of a world, to compare with what comes.
    type Ledger: Default;
    /// A group that nobody has heard of.
    fn fresh(env: &Env<'_>) -> Self;
    /// The group as its records, those not taken back, leave it after a restart. Of what it was before, only the
    /// test's own books are kept.
    fn replay(&self, records: &[Record], env: &Env<'_>) -> Self;
    fn step(&mut self, event: Event<Waiter>, env: &Env<'_>, effects: &mut Effects<Waiter>);
    fn due_ms(&self) -> Option<i64>;
    fn generation(&self) -> i32;
    /// Whether no rebalance is under way.
    fn is_settled(&self) -> bool;
    fn is_empty(&self) -> bool;
    /// Every partition that a member owns, once for each such member.
    fn owned(&self) -> Vec<(Uuid, i32)>;
    /// Makes, widens or deletes topics, if the protocol looks at them.
    fn stir_topics(_catalog: &mut State, _rng: &mut StdRng) {}
    /// Checks what the protocol promises; called after each step that came true, and after each restart.
    fn check(&self, ledger: &mut Self::Ledger);
}

/// A client that does as real ones do.
pub trait Client {
    /// Whether a request may come once more: not if its answer tells only what is new, and nobody hears it.
    const REPEATS: bool = true;
    /// `name` is its static name.
    fn new(rng: &mut StdRng, name: Option<String>) -> Self;
    /// What it sends next, in which version, and whether that is a mere sign of life.
    fn ask(&mut self, rng: &mut StdRng) -> (Ask, i16, bool);
    /// Takes the answer.
    fn told(&mut self, told: &Told);
    /// Its connection broke before the answer came.
    fn cut_off(&mut self);
    /// It now does something else than go on: changes what it wants, or leaves.
    fn stir(&mut self, rng: &mut StdRng) -> (Ask, i16);
    /// Whether it is a member of this generation and has what it wants.
    fn is_in(&self, generation: i32) -> bool;
    /// The partitions that it was told it owns.
    fn owned(&self) -> Vec<(Uuid, i32)>;
}

/// What steps may look at.
struct Around {
    config: Config,
    catalog: State,
    new_id: Box<dyn Fn() -> Uuid>,
    now_ms: i64,
    time_ms: i64,
}

impl Around {
    fn new(rng: &mut StdRng) -> Around {
        let ids = Cell::new(rng.random::<u128>());
        let mut config = Config::default();
        config.group_initial_rebalance_delay_ms = [0, 100, 3000][rng.random_range(0..3)];
        config.group_max_size = [i32::MAX, 4][usize::from(rng.random_bool(0.2))];
        config.group_consumer_max_size = config.group_max_size;
        Around {
            config,
            catalog: State::default(),
            new_id: Box::new(move || {
                ids.set(ids.get().wrapping_add(1));
                Uuid(ids.get().to_be_bytes())
            }),
            now_ms: 1_000,
            time_ms: 1_000_000,
        }
    }

    fn env(&self) -> Env<'_> {
        Env {
            now_ms: self.now_ms,
            time_ms: self.time_ms,
            config: &self.config,
            catalog: &self.catalog,
            new_id: &*self.new_id,
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.time_ms += ms;
    }
}

/// A client and what it waits for.
struct Seat<C> {
    client: C,
    name: Option<String>,
    waits_for: Option<Waiter>,
    /// The last request, which a bad network may bring once more.
    last: Option<(Ask, i16)>,
    next_sign_ms: i64,
}

/// The driver's model, with its clients.
struct World<M: Machine> {
    rng: StdRng,
    around: Around,
    group: M,
    seats: Vec<Seat<M::Client>>,
    /// The log, compacted.
    log: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What a commit under way will make true, and what led to it.
    committing: Option<(M, Effects<Waiter>, Event<Waiter>)>,
    queue: VecDeque<Event<Waiter>>,
    /// Requests not answered, and whose they are; nobody's if that client is gone.
    waiting: HashMap<Waiter, Option<usize>>,
    last_waiter: Waiter,
    /// The highest generation in this life of the broker.
    generation: i32,
    /// The highest generation in which the group came to rest, in any life: it was recorded.
    recorded: i32,
    ledger: M::Ledger,
}

const CLIENTS: usize = 6;
const SIGN_OF_LIFE_MS: i64 = 1_500;

impl<M: Machine> World<M> {
    fn new(seed: u64) -> World<M> {
        let mut rng = StdRng::seed_from_u64(seed);
        let around = Around::new(&mut rng);
        let group = M::fresh(&around.env());
        let mut seats = Vec::new();
        for seat in 0..CLIENTS {
            let name = (seat % 3 == 0).then(|| format!("static-{seat}"));
            seats.push(Seat {
                client: M::Client::new(&mut rng, name.clone()),
                name,
                waits_for: None,
                last: None,
                next_sign_ms: 0,
            });
        }
        World {
            rng,
            around,
            group,
            seats,
            log: BTreeMap::new(),
            committing: None,
            queue: VecDeque::new(),
            waiting: HashMap::new(),
            last_waiter: 0,
            generation: 0,
            recorded: 0,
            ledger: M::Ledger::default(),
        }
    }

    fn send(&mut self, seat: Option<usize>, ask: Ask, version: i16) {
        self.last_waiter += 1;
        let asker = Asker {
            version,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            waiter: self.last_waiter,
        };
        self.waiting.insert(self.last_waiter, seat);
        if let Some(seat) = seat {
            self.seats[seat].last = Some((ask.clone(), version));
            self.seats[seat].waits_for = Some(self.last_waiter);
        }
        self.take_up(Event::Asked(Box::new(ask), asker));
    }

    fn take_up(&mut self, event: Event<Waiter>) {
        self.queue.push_back(event);
        self.drain();
    }

    fn drain(&mut self) {
        while self.committing.is_none()
            && let Some(event) = self.queue.pop_front()
        {
            let mut next = self.group.clone();
            let mut effects = Effects::default();
            next.step(event.clone(), &self.around.env(), &mut effects);
            if let (Some((_, Told::LookUp(look_up))), Event::Asked(_, asker)) =
                (effects.told.last(), &event)
            {
                let (request, found) = look_up.clone().run();
                let ask = Ask::ConsumerHeartbeat(request, found);
                let again = Event::Asked(Box::new(ask), asker.clone());
                self.queue.push_front(again);
                self.become_true(next, Vec::new());
            } else if effects.records.is_empty() {
                self.become_true(next, effects.told);
            } else {
                self.committing = Some((next, effects, event));
            }
        }
    }

    /// The commit under way ends.
    fn end_commit(&mut self, durable: bool) {
        let Some((next, effects, event)) = self.committing.take() else {
            return;
        };
        if durable {
            self.write(&effects.records);
            self.become_true(next, effects.told);
        } else if let Event::Asked(ask, asker) = event {
            self.become_true(
                self.group.clone(),
                vec![(
                    asker.waiter,
                    ask.refusal(ErrorCode::CoordinatorNotAvailable),
                )],
            );
        }
        self.drain();
    }

    fn write(&mut self, records: &[Record]) {
        for record in records {
            match record.encode() {
                (key, Some(value)) => self.log.insert(key, value),
                (key, None) => self.log.remove(&key),
            };
        }
    }

    fn become_true(&mut self, group: M, told: Vec<(Waiter, Told)>) {
        self.group = group;
        for (waiter, told) in told {
            let seat = self.waiting.remove(&waiter);
            let seat = seat.expect("nobody is answered twice");
            if let Some(seat) = seat.map(|seat| &mut self.seats[seat])
                && seat.waits_for == Some(waiter)
            {
                seat.waits_for = None;
                seat.client.told(&told);
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let generation = self.group.generation();
        assert!(generation >= self.generation, "the generation fell");
        self.generation = generation;
        if self.group.is_settled() || self.group.is_empty() {
            self.recorded = generation;
        }
        let mut owned = HashSet::new();
        for partition in self.group.owned() {
            assert!(owned.insert(partition), "{partition:?} has two owners");
        }
        self.group.check(&mut self.ledger);
        let idle = self.committing.is_none() && self.queue.is_empty();
        if idle && !self.waiting.is_empty() {
            assert!(self.group.due_ms().is_some(), "someone waits for ever");
        }
    }

    /// The client in this seat does what it has to, if it waits for nothing.
    fn go_on(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if seat.waits_for.is_none() {
            let (ask, version, sign) = seat.client.ask(&mut self.rng);
            if !sign || seat.next_sign_ms <= self.around.now_ms {
                seat.next_sign_ms = self.around.now_ms + SIGN_OF_LIFE_MS;
                self.send(Some(at), ask, version);
            }
        }
    }

    /// What is due happens.
    fn fire(&mut self) {
        let due = |group: &M, now_ms| group.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        if self.committing.is_none() && due(&self.group, self.around.now_ms) {
            self.take_up(Event::Due);
        }
    }

    /// The broker dies; what it was writing may have become durable.
    fn restart(&mut self) {
        if let Some((_, effects, _)) = self.committing.take()
            && self.rng.random()
        {
            self.write(&effects.records);
        }
        if self.rng.random_bool(0.2) {
            // The machine was started anew, and with it CLOCK_BOOTTIME.
            self.around.now_ms = self.rng.random_range(0..10_000);
            self.seats.iter_mut().for_each(|seat| seat.next_sign_ms = 0);
        }
        self.queue.clear();
        self.waiting.clear();
        for seat in &mut self.seats {
            if seat.waits_for.take().is_some() {
                seat.client.cut_off();
            }
        }
        let read = |(key, value): (&Vec<u8>, &Vec<u8>)| Record::decode(key, Some(value));
        let records: Vec<_> = self.log.iter().map(read).collect();
        let records: Result<Vec<_>, _> = records.into_iter().collect();
        let records: Vec<_> = records.expect("our own").into_iter().flatten().collect();
        self.group = M::replay(&self.group, &records, &self.around.env());
        self.generation = self.recorded;
        self.check();
    }

    /// A client is no more, and another one takes its seat. Whether the broker still holds a request of the old one
    /// makes no difference to the new one.
    fn replace(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.client = M::Client::new(&mut self.rng, seat.name.clone());
        if let Some(waiter) = seat.waits_for.take() {
            self.waiting.insert(waiter, None);
        }
    }

    /// A client does not wait any longer, and asks anew on another connection.
    fn lose_patience(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        if let Some(waiter) = seat.waits_for.take() {
            seat.client.cut_off();
            self.waiting.insert(waiter, None);
        }
        self.go_on(at);
    }

    fn random_step(&mut self) {
        let at = self.rng.random_range(0..CLIENTS);
        match self.rng.random_range(0..1000) {
            0..600 => self.go_on(at),
            600..650 if self.seats[at].waits_for.is_none() => {
                let (ask, version) = self.seats[at].client.stir(&mut self.rng);
                self.send(Some(at), ask, version);
            }
            650..680 => self.lose_patience(at),
            680..700 => self.replace(at),
            700..730 if M::Client::REPEATS => {
                if let Some((ask, version)) = self.seats[at].last.clone() {
                    self.send(None, ask, version);
                }
            }
            730..735 => self.restart(),
            735..738 => self.around.pass(1_000_000),
            738..740 => M::stir_topics(&mut self.around.catalog, &mut self.rng),
            740..760 => {
                let ms = self.rng.random_range(0..20_000);
                self.around.pass(ms);
            }
            760..850 => {
                let ms = self.rng.random_range(0..1_000);
                self.around.pass(ms);
            }
            850..950 => self.end_commit(true),
            950..960 => self.end_commit(false),
            _ => {}
        }
        // A driver may be late.
        if self.rng.random_bool(0.7) {
            self.fire();
        }
    }

    /// Nothing more comes in: everyone is answered, and the group is left by all.
    fn fall_silent(&mut self) {
        for _ in 0..200 {
            while self.committing.is_some() {
                self.end_commit(true);
            }
            let Some(due_ms) = self.group.due_ms() else {
                break;
            };
            let ms = due_ms - self.around.now_ms;
            self.around.pass(ms.max(0));
            self.fire();
        }
        assert!(self.group.is_empty(), "silent members are still there");
        assert!(self.waiting.is_empty(), "someone was never answered");
    }

    fn is_at_rest(&self) -> bool {
        let generation = self.group.generation();
        let clients = || self.seats.iter().map(|seat| &seat.client);
        let mut told: Vec<_> = clients().flat_map(Client::owned).collect();
        let mut owned = self.group.owned();
        told.sort();
        owned.sort();
        // As long as clients that are no more own something, the others own less than the group says.
        let all_in = clients().all(|client| client.is_in(generation));
        self.group.is_settled() && all_in && told == owned
    }

    /// From now on all clients behave, and there are no accidents: they become members of one generation.
    fn settle(&mut self) {
        for _ in 0..3_000 {
            self.end_commit(true);
            if self.is_at_rest() {
                return;
            }
            (0..CLIENTS).for_each(|at| self.go_on(at));
            self.around.pass(SIGN_OF_LIFE_MS / 5);
            self.fire();
        }
        panic!("clients that behave find no rest");
    }
}

/// Drives machines of one kind: worlds of some thousand steps each, until all steps are taken.
pub fn run<M: Machine>(steps: u64) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let one_seed: Option<u64> = number("OTTLA_SEED");
    let steps_max: u64 = number("OTTLA_GROUP_STEPS").unwrap_or(steps);
    let mut steps = 0;
    while steps < steps_max {
        let seed = one_seed.unwrap_or_else(rand::random);
        println!("OTTLA_SEED={seed}");
        let mut world = World::<M>::new(seed);
        for round in 0..20 {
            (0..500).for_each(|_| world.random_step());
            if round % 2 == 0 && world.around.config.group_max_size as usize > CLIENTS {
                world.settle();
            } else {
                world.fall_silent();
            }
        }
        steps += 20 * 500;
        if one_seed.is_some() {
            return;
        }
    }
}
