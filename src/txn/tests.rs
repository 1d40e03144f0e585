//! The registry of transactions, step by step: both flows, fencing, waiting, refusals, restarts, memory and age.

mod gaps;

use super::testing::Scene;
use super::*;
use crate::error::ErrorCode::{
    self, ConcurrentTransactions, CoordinatorNotAvailable, InvalidProducerIdMapping,
    InvalidTxnState, KafkaStorageError, PolicyViolation, ProducerFenced, TransactionAbortable,
    UnknownTopicOrPartition,
};

const MINUTE: i32 = 60_000;

impl Scene {
    /// The answer, once all is synced.
    fn told(&mut self, request: Request) -> Response {
        let waiter = self.ask(request);
        self.settle();
        self.answers.remove(&waiter).expect("an answer")
    }

    fn init(&mut self, expected: Option<(i64, i16)>) -> Result<(i64, i16), ErrorCode> {
        match self.told(init(expected)) {
            Response::Init(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn enlist(&mut self, of: (i64, i16), bumps: bool) -> Result<Serial, ErrorCode> {
        match self.told(enlist(of, bumps)) {
            Response::Enlisted(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, of: (i64, i16), commit: bool, bumps: bool) -> Result<(i64, i16), ErrorCode> {
        match self.told(end(of, commit, bumps)) {
            Response::Ended(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> State {
        self.transactions.get("id").expect("a known id").state
    }

    fn part(&self, (id, epoch): (i64, i16)) -> Result<Part, ErrorCode> {
        self.transactions
            .published()
            .part(id, epoch, &"t".into(), 0)
    }

    /// What was marked since this was last asked: whose, at which epoch, how.
    fn marked(&mut self) -> Vec<(i64, i16, bool)> {
        let marks = self.marks.drain(..);
        marks
            .map(|mark| (mark.producer_id, mark.epoch, mark.commit))
            .collect()
    }
}

fn producer((id, epoch): (i64, i16)) -> Producer {
    Producer {
        transactional_id: "id".into(),
        id,
        epoch,
    }
}

fn init(expected: Option<(i64, i16)>) -> Request {
    Request::Init {
        transactional_id: "id".into(),
        timeout_ms: MINUTE,
        expected,
    }
}

fn enlist(of: (i64, i16), bumps: bool) -> Request {
    Request::Enlist {
        producer: producer(of),
        partitions: vec![("t".into(), 0)],
        bumps,
    }
}

fn end(of: (i64, i16), commit: bool, bumps: bool) -> Request {
    Request::End {
        producer: producer(of),
        commit,
        bumps,
    }
}

#[test]
fn the_older_flow_keeps_its_epoch() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    assert_eq!(me, (100, 0));
    assert_eq!(scene.end(me, true, false), Err(InvalidTxnState));
    for commit in [true, false] {
        let serial = scene.enlist(me, false).unwrap();
        assert_eq!(scene.enlist(me, false), Ok(serial));
        assert_eq!(scene.part(me), Ok(Part::Of(serial)));
        assert_eq!(scene.end(me, commit, false), Ok(me));
        assert_eq!(scene.part(me), Ok(Part::None));
        assert_eq!(scene.marked(), [(100, 0, commit)]);
        assert_eq!(scene.end(me, commit, false), Ok(me), "a retry");
        assert_eq!(scene.end(me, !commit, false), Err(InvalidTxnState));
    }
    assert_eq!(scene.end((100, 1), true, false), Err(ProducerFenced));
    assert_eq!(
        scene.end((99, 0), true, false),
        Err(InvalidProducerIdMapping)
    );
    assert_eq!(scene.enlist((100, 1), false), Err(ProducerFenced));
    assert_eq!(scene.enlist((99, 0), false), Err(InvalidProducerIdMapping));
}

/// KIP-890's table of retries.
#[test]
fn the_newer_flow_raises_the_epoch_at_each_end() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    assert_eq!(scene.end(me, true, true), Err(InvalidTxnState));
    assert_eq!(
        scene.end((100, -1), false, true),
        Err(ProducerFenced),
        "no retry of Empty"
    );
    let me = scene.end(me, false, true).unwrap();
    assert_eq!(
        (me, scene.marked()),
        ((100, 1), vec![]),
        "nothing was added"
    );
    for commit in [true, false] {
        let before = scene.init(None).unwrap();
        scene.enlist(before, true).unwrap();
        let me = scene.end(before, commit, true).unwrap();
        assert_eq!(me, (100, before.1 + 1));
        assert_eq!(scene.marked(), [(100, me.1, commit)]);
        assert_eq!(scene.end(before, commit, true), Ok(me), "a retry");
        assert_eq!(scene.end(before, !commit, true), Err(InvalidTxnState));
        assert_eq!(scene.end(me, true, true), Err(InvalidTxnState));
        assert_eq!(scene.enlist(before, true), Err(ProducerFenced));
        assert_eq!(
            scene.end(me, false, true),
            Ok((100, me.1 + 1)),
            "an empty one"
        );
    }
}

#[test]
fn an_end_at_the_last_epoch_gives_a_new_id() {
    let mut scene = Scene::new();
    let last = (5, i16::MAX - 1);
    let transaction = Transaction {
        producer_id: last.0,
        epoch: last.1,
        timeout_ms: MINUTE,
        ..Transaction::default()
    };
    let (key, value) = records::encode("id", Some(&transaction));
    scene.log.insert(key, value.unwrap());
    scene.restart(Vec::new());
    scene.enlist(last, true).unwrap();
    let me = scene.end(last, true, true).unwrap();
    assert_eq!(me, (100, 0));
    assert_eq!(scene.marked(), [(5, i16::MAX, true)]);
    assert_eq!(scene.end(last, true, true), Ok(me), "a retry");
    scene.restart(vec![(("t".into(), 0), last.0, last.1)]);
    scene.settle();
    assert_eq!(scene.marked(), [(last.0, last.1, true)], "a lost marker");
    scene.enlist(me, true).unwrap();
    assert_eq!(scene.end(last, true, true), Err(InvalidProducerIdMapping));
}

/// The epoch before the current one is that of a retry only if the end raised it.
#[test]
fn a_zombie_is_not_told_the_epoch_of_who_ended_by_the_older_flow() {
    for commit in [true, false] {
        let mut scene = Scene::new();
        let zombie = scene.init(None).unwrap();
        let me = scene.init(None).unwrap();
        scene.enlist(me, false).unwrap();
        assert_eq!(scene.end(me, commit, false), Ok(me));
        assert_eq!(scene.end(zombie, commit, true), Err(ProducerFenced));
    }
}

/// KIP-360.
#[test]
fn a_producer_goes_on_after_an_error_unless_another_came() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    assert_eq!(scene.init(Some(me)), Ok((100, 1)));
    assert_eq!(scene.init(Some(me)), Ok((100, 1)), "a retry");
    assert_eq!(scene.init(Some((99, 1))), Err(ProducerFenced));
    assert_eq!(scene.init(None), Ok((100, 2)));
    assert_eq!(scene.init(Some((100, 1))), Err(ProducerFenced));
    scene.enlist((100, 2), false).unwrap();
    assert_eq!(scene.init(Some((100, 1))), Err(ProducerFenced));
    assert_eq!(scene.state(), State::Ongoing, "who is fenced ends nothing");
}

#[test]
fn who_begins_anew_fences_and_aborts_and_is_answered_after_that() {
    let mut scene = Scene::new();
    let zombie = scene.init(None).unwrap();
    scene.enlist(zombie, false).unwrap();
    let waiter = scene.ask(init(None));
    scene.settle_at(0, Ok(()));
    assert!(!scene.answers.contains_key(&waiter));
    assert_eq!(
        (scene.state(), scene.part(zombie)),
        (State::PrepareAbort, Ok(Part::None))
    );
    scene.settle();
    assert_eq!(scene.answers[&waiter], Response::Init(Ok((100, 3))));
    assert_eq!(scene.marked(), [(100, 2, false)]);
    assert_eq!(scene.end(zombie, true, false), Err(ProducerFenced));
    assert_eq!(scene.end(zombie, true, true), Err(ProducerFenced));
    assert_eq!(scene.enlist(zombie, true), Err(ProducerFenced));
}

#[test]
fn what_comes_before_the_markers_are_written_waits_but_not_for_ever() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.enlist(me, true).unwrap();
    let ended = scene.ask(end(me, true, true));
    scene.settle_at(0, Ok(()));
    let next = (100, 1);
    assert_eq!(scene.answers[&ended], Response::Ended(Ok(next)));
    scene.settle_at(0, Err(KafkaStorageError));
    let early = scene.ask(enlist(next, true));
    scene.pass(4_000);
    scene.settle_at(0, Err(KafkaStorageError));
    let (late, again) = (
        scene.ask(enlist(next, true)),
        scene.ask(end(me, true, true)),
    );
    scene.pass(1_000);
    let concurrent = Response::Enlisted(Err(ConcurrentTransactions));
    assert_eq!(scene.answers[&early], concurrent);
    assert!(!scene.answers.contains_key(&late));
    scene.settle();
    assert_eq!(scene.marked(), [(100, 1, true)]);
    assert!(matches!(scene.answers[&late], Response::Enlisted(Ok(_))));
    // It was asked while the next one was open already.
    assert_eq!(scene.answers[&again], Response::Ended(Err(ProducerFenced)));
}

#[test]
fn a_step_whose_record_is_refused_never_was() {
    let mut scene = Scene::new();
    let waiter = scene.ask(init(None));
    scene.settle_at(0, Err(KafkaStorageError));
    let refused = Response::Init(Err(CoordinatorNotAvailable));
    assert_eq!(scene.answers[&waiter], refused);
    assert_eq!(scene.transactions.get("id"), None);
    let me = scene.init(None).unwrap();
    scene.ask(enlist(me, true));
    scene.settle_at(0, Err(KafkaStorageError));
    assert_eq!(
        (scene.state(), scene.part(me)),
        (State::Empty, Ok(Part::None))
    );
    scene.enlist(me, true).unwrap();
    scene.ask(end(me, true, true));
    scene.settle_at(0, Err(KafkaStorageError));
    assert_eq!(scene.state(), State::Ongoing);
    assert!(matches!(scene.part(me), Ok(Part::Of(_))));
    // The end is decided, but that it is done cannot be recorded at first.
    scene.ask(end(me, true, true));
    scene.settle_at(0, Ok(()));
    scene.settle_at(0, Ok(()));
    scene.settle_at(0, Err(KafkaStorageError));
    assert_eq!(scene.state(), State::PrepareCommit);
    scene.pass(1_000);
    scene.settle();
    assert_eq!(
        (scene.state(), scene.marked()),
        (State::CompleteCommit, vec![(101, 1, true)])
    );
}

#[test]
fn without_producer_ids_nobody_begins() {
    let mut scene = Scene::new();
    scene.ids = None;
    assert_eq!(scene.init(None), Err(CoordinatorNotAvailable));
    scene.ids = Some(7);
    assert_eq!(scene.init(None), Ok((7, 0)));
}

/// P8: neither a clock step nor a restart ends one early.
#[test]
fn a_transaction_that_lasts_too_long_is_aborted() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.enlist(me, true).unwrap();
    scene.time_ms += 1 << 40;
    scene.pass(i64::from(MINUTE));
    assert_eq!((scene.state(), scene.under_way.len()), (State::Ongoing, 0));
    scene.restart(Vec::new());
    scene.pass(i64::from(MINUTE));
    assert_eq!((scene.state(), scene.under_way.len()), (State::Ongoing, 0));
    scene.pass(i64::from(scene.config.transaction_abort_interval_ms));
    scene.settle();
    assert_eq!(
        (scene.state(), scene.marked()),
        (State::CompleteAbort, vec![(100, 2, false)])
    );
    assert_eq!(scene.end(me, true, true), Err(ProducerFenced));
    assert_eq!(scene.end(me, false, true), Err(ProducerFenced));
}

#[test]
fn an_id_that_nobody_uses_is_forgotten_on_broker_time() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.pass(i64::from(scene.config.transactional_id_expiration_ms) - 1);
    assert_eq!(scene.under_way.len(), 0);
    scene.pass(i64::from(scene.config.transaction_expiry_interval_ms));
    // Who comes meanwhile is heard afterwards.
    let waiter = scene.ask(enlist(me, true));
    scene.settle();
    let unknown = Response::Enlisted(Err(InvalidProducerIdMapping));
    assert_eq!(scene.answers[&waiter], unknown);
    assert_eq!((scene.transactions.get("id"), scene.log.len()), (None, 0));
    assert_eq!(scene.init(None), Ok((101, 0)));
}

#[test]
fn growth_beyond_the_memory_of_transactions_is_refused() {
    let mut scene = Scene::new();
    scene.config.transaction_state_bytes_max = 65_536;
    let me = scene.init(None).unwrap();
    let many = |producer| Request::Enlist {
        producer,
        partitions: (0..2_000).map(|index| ("t".into(), index)).collect(),
        bumps: true,
    };
    let refused = Response::Enlisted(Err(TransactionAbortable));
    assert_eq!(scene.told(many(producer(me))), refused);
    scene.enlist(me, true).unwrap();
    let others = (0..300).map(|n| Request::Init {
        transactional_id: format!("id{n}"),
        timeout_ms: MINUTE,
        expected: None,
    });
    let told: Vec<Response> = others.map(|init| scene.told(init)).collect();
    assert!(matches!(told[0], Response::Init(Ok(_))));
    assert_eq!(told[299], Response::Init(Err(PolicyViolation)));
    assert_eq!(
        scene.end(me, true, true),
        Ok((100, 1)),
        "what is there can end"
    );
}

#[test]
fn a_restart_carries_out_what_was_decided() {
    for synced in 0..4 {
        let mut scene = Scene::new();
        let me = scene.init(None).unwrap();
        scene.enlist(me, true).unwrap();
        scene.ask(end(me, true, true));
        (0..synced).for_each(|_| {
            if !scene.under_way.is_empty() {
                scene.settle_at(0, Ok(()));
            }
        });
        scene.restart(Vec::new());
        if synced == 0 {
            assert!(
                matches!(scene.part(me), Ok(Part::Of(_))),
                "it is open still"
            );
        }
        assert_eq!(
            scene.end(me, true, true),
            Ok((100, 1)),
            "after {synced} syncs"
        );
        assert!(!scene.marks.is_empty() && scene.marks.iter().all(|mark| mark.commit));
        assert_eq!(scene.state(), State::CompleteCommit);
    }
}

/// P5: a marker that a log lost is made good by what is known of its transaction.
#[test]
fn what_a_log_holds_open_and_nobody_knows_is_ended() {
    for (commit, bumps) in [(true, true), (true, false), (false, true)] {
        let mut scene = Scene::new();
        let me = scene.init(None).unwrap();
        scene.enlist(me, bumps).unwrap();
        scene.end(me, commit, bumps).unwrap();
        scene.marked();
        let place = |index| ("t".into(), index);
        let other_epoch = (place(1), me.0, me.1 + 7);
        scene.restart(vec![(place(0), me.0, me.1), other_epoch, (place(2), 55, 0)]);
        scene.settle();
        let expected = [(100, 0, commit), (100, 7, false), (55, 0, false)];
        assert_eq!(scene.marked(), expected);
    }
}

/// P5: an earlier transaction's marker was lost; what became of that is not what becomes of the next one.
#[test]
fn what_an_earlier_epoch_left_open_is_ended_first() {
    for commits in [false, true] {
        let mut scene = Scene::new();
        let me = scene.init(None).unwrap();
        scene.enlist(me, true).unwrap();
        let next = scene.end(me, false, true).unwrap();
        scene.enlist(next, true).unwrap();
        if commits {
            scene.ask(end(next, true, true));
            scene.settle_at(0, Ok(()));
        }
        scene.marked();
        scene.restart(vec![(("t".into(), 0), me.0, me.1)]);
        scene.settle();
        let stray = scene.marks[0].serial;
        let mut expected = vec![(100, 0, false)];
        expected.extend(commits.then_some((100, 2, true)));
        assert_eq!(scene.marked(), expected);
        let goes_on = matches!(scene.part(next), Ok(Part::Of(serial)) if serial > stray);
        assert_eq!(goes_on, !commits, "its batches do not come too late");
    }
}

#[test]
fn an_end_of_nothing_is_completed_after_a_restart() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.ask(end(me, false, true));
    scene.settle_at(0, Ok(()));
    assert_eq!(scene.state(), State::PrepareAbort);
    scene.restart(Vec::new());
    scene.settle();
    assert_eq!(scene.state(), State::CompleteAbort);
}

#[test]
fn nothing_is_written_to_a_topic_that_is_gone() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.enlist(me, true).unwrap();
    let gone = ["t".to_string()].into();
    scene.with(|transactions, env| transactions.forget_topics(&gone, env));
    assert_eq!(scene.part(me), Ok(Part::None));
    assert_eq!(scene.end(me, true, true), Ok((100, 1)));
    assert_eq!(
        (scene.state(), scene.marked()),
        (State::CompleteCommit, vec![])
    );
    // The same while a marker waits.
    scene.enlist((100, 1), true).unwrap();
    scene.ask(end((100, 1), true, true));
    scene.settle_at(0, Ok(()));
    scene.settle_at(0, Err(KafkaStorageError));
    scene.with(|transactions, env| transactions.forget_topics(&gone, env));
    scene.settle();
    assert_eq!(
        (scene.state(), scene.marked()),
        (State::CompleteCommit, vec![])
    );
}

#[test]
fn a_deleted_log_leaves_nothing_open() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.enlist(me, true).unwrap();
    scene.with(|transactions, _| transactions.forget_all());
    assert_eq!(scene.part(me), Ok(Part::None));
    scene.settle();
    assert_eq!(scene.marked(), [(100, 0, false)]);
    assert_eq!(scene.enlist(me, true), Err(InvalidProducerIdMapping));
}

#[test]
fn an_operators_marker_is_written_whatever_is_known() {
    let mut scene = Scene::new();
    let request = Request::Mark {
        producer_id: 9,
        epoch: 4,
        commit: false,
        coordinator_epoch: 3,
        partitions: vec![("t".into(), 0), ("t".into(), 1)],
    };
    let waiter = scene.ask(request);
    scene.settle_at(0, Ok(()));
    scene.settle_at(0, Err(UnknownTopicOrPartition));
    let codes = vec![ErrorCode::None, UnknownTopicOrPartition];
    assert_eq!(scene.answers[&waiter], Response::Marked(codes));
    assert_eq!(scene.marked(), [(9, 4, false)]);
}
