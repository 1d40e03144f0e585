//! Rot in the log of transactions, which takes what is known of an id.

use super::*;

/// Rot may take an id's newest records: nobody begins again at an epoch that a log has seen.
#[test]
fn an_id_whose_newest_records_are_lost_goes_on_above_the_logs() {
    let mut scene = Scene::new();
    let (id, epoch) = scene.init(None).unwrap();
    scene.enlist((id, epoch), true).unwrap();
    let in_log = epoch + 4;
    let open = vec![(("t".into(), 0), id, in_log)];
    scene.restart_with(open, &[(id, in_log), (id + 1, 9)].into());
    scene.settle();
    assert_eq!(
        scene.marked(),
        [(id, in_log, false)],
        "it is not the one that is known"
    );
    assert_eq!(scene.state(), State::Empty);
    assert_eq!(scene.init(None), Ok((id, in_log + 1)));
}

impl Scene {
    /// Every record that is in the log is lost, and the broker notices.
    fn lose_log(&mut self) {
        self.log.clear();
        self.with(|transactions, env| transactions.restate(|_| true, env));
    }
}

/// It was answered as committed, and markers may wait for a full disk: a start shall write the other half alike.
#[test]
fn an_end_that_is_under_way_is_recorded_once_more_after_a_gap() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.enlist(me, true).unwrap();
    let waiter = scene.ask(end(me, true, true));
    scene.settle_at(0, Ok(()));
    assert!(matches!(
        scene.answers[&waiter],
        Response::Ended(Ok((100, 1)))
    ));
    scene.settle_at(0, Err(KafkaStorageError));
    scene.lose_log();
    scene.settle();
    assert_eq!(scene.marked(), [], "the marker still waits");
    scene.restart(vec![(("t".into(), 0), me.0, me.1)]);
    scene.settle();
    assert_eq!(scene.marked(), [(100, 1, true)]);
    assert_eq!(scene.state(), State::CompleteCommit);
}

/// The last marker may be written while that record is on its way.
#[test]
fn an_end_that_is_recorded_once_more_is_completed_once() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.enlist(me, true).unwrap();
    scene.ask(end(me, true, true));
    scene.settle_at(0, Ok(()));
    scene.lose_log();
    scene.settle();
    assert_eq!(scene.marked(), [(100, 1, true)]);
    assert_eq!(scene.state(), State::CompleteCommit);
    assert_eq!(scene.enlist((100, 1), true).map(drop), Ok(()));
}

#[test]
fn what_a_full_disk_refuses_to_record_once_more_is_tried_again() {
    let mut scene = Scene::new();
    let me = scene.init(None).unwrap();
    scene.lose_log();
    scene.settle_at(0, Err(KafkaStorageError));
    scene.pass(1_000);
    scene.settle();
    scene.restart(Vec::new());
    assert_eq!(scene.init(None), Ok((me.0, me.1 + 1)));
}
