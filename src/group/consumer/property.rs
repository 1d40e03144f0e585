//! The new protocol's part of the property test: clients that send heartbeats and do as they are told.

use super::ConsumerGroup;
use super::Found;
use super::member::{EPOCH_AWAY, owned, pairs};
use crate::api::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use crate::catalog::State;
use crate::error::ErrorCode;
use crate::group::property_tests::{Client, Machine, Waiter, run};
use crate::group::records::Record;
use crate::group::{Ask, Effects, Env, Event, Told};
use crate::wire::Uuid;
use crate::wire::metadata_records::{
    MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord,
};
use rand::seq::IteratorRandom;
use rand::{Rng, rngs::StdRng};

impl Machine for ConsumerGroup {
    type Client = Modern;
    type Ledger = ();

    fn fresh(_: &Env<'_>) -> Self {
        ConsumerGroup::new("group")
    }

    fn replay(&self, records: &[Record], env: &Env<'_>) -> Self {
        let mut group = ConsumerGroup::new("group");
        records
            .iter()
            .for_each(|record| ConsumerGroup::replay(&mut group, record));
        group.loaded(env);
        group
    }

    fn step(&mut self, event: Event<Waiter>, env: &Env<'_>, effects: &mut Effects<Waiter>) {
        self.step(event, env, effects);
    }

    fn due_ms(&self) -> Option<i64> {
        self.due_ms()
    }

    fn generation(&self) -> i32 {
        self.epoch
    }

    fn is_settled(&self) -> bool {
        self.state_name() == "Stable"
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn owned(&self) -> Vec<(Uuid, i32)> {
        let members = self.members.values().map(|seat| &seat.member);
        let owned =
            members.flat_map(|member| pairs(&member.assigned).chain(pairs(&member.revoking)));
        owned.collect()
    }

    fn stir_topics(catalog: &mut State, rng: &mut StdRng) {
        stir_topics(catalog, rng);
    }

    fn check(&self, (): &mut ()) {
        assert!(self.target_epoch <= self.epoch);
        for seat in self.members.values() {
            let member = &seat.member;
            assert!(member.epoch <= self.target_epoch, "{member:?}");
            assert!(!member.is_at(self.target_epoch) || member.assigned == member.target);
        }
    }
}

/// Makes, widens or deletes one of eight topics.
pub(super) fn stir_topics(catalog: &mut State, rng: &mut StdRng) {
    let name = format!("t{}", rng.random_range(0..8));
    let known = catalog.topics.get(&name);
    let known = known.map(|topic| (topic.id, topic.leader_epochs.len() as i32));
    let (topic_id, first) = known.unwrap_or((Uuid(rng.random()), 0));
    if known.is_some() && rng.random_bool(0.3) {
        return catalog.apply(&MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id }));
    }
    if known.is_none() {
        catalog.apply(&MetadataRecord::Topic(TopicRecord { name, topic_id }));
    }
    for partition_id in first..first + rng.random_range(1..4) {
        catalog.apply(&MetadataRecord::Partition(PartitionRecord {
            partition_id,
            topic_id,
            ..PartitionRecord::default()
        }));
    }
}

/// A client.
pub struct Modern {
    name: Option<String>,
    pub id: String,
    pub epoch: i32,
    topics: Vec<String>,
    pattern: String,
    assignor: Option<String>,
    pub owned: Vec<TopicPartitions>,
    /// It has something to say before its next sign of life is due.
    pub news: bool,
    /// It must say everything, for it does not know what the broker heard.
    whole: bool,
}

impl Modern {
    fn want(&mut self, rng: &mut StdRng) {
        let topics = (0..8).choose_multiple(rng, 3).into_iter();
        self.topics = topics.map(|number| format!("t{number}")).collect();
        let patterns = ["", "", "t[0-3]", "t.*", "u|t7"];
        self.pattern = patterns[rng.random_range(0..patterns.len())].to_owned();
        self.assignor = [None, Some("uniform".to_owned()), Some("range".to_owned())]
            [rng.random_range(0..3)]
        .clone();
    }

    fn heartbeat(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        let joins = epoch == 0;
        let whole = joins || self.whole;
        ConsumerGroupHeartbeatRequest {
            group_id: "group".to_owned(),
            member_id: self.id.clone(),
            member_epoch: epoch,
            instance_id: self.name.clone(),
            rack_id: None,
            rebalance_timeout_ms: if whole { 20_000 } else { -1 },
            subscribed_topic_names: whole.then(|| self.topics.clone()),
            subscribed_topic_regex: whole.then(|| self.pattern.clone()),
            server_assignor: self.assignor.clone().filter(|_| whole),
            topic_partitions: match joins {
                true => Some(Vec::new()),
                false => (whole || self.news).then(|| self.owned.clone()),
            },
        }
    }

    fn heard(&mut self, answer: &ConsumerGroupHeartbeatResponse) {
        let is = |code: ErrorCode| answer.error_code == code.code();
        if answer.error_code == 0 {
            self.whole = false;
            self.epoch = answer.member_epoch.max(0);
            self.news = answer.assignment.is_some();
            if let Some(assignment) = &answer.assignment {
                self.owned = assignment.topic_partitions.clone();
            }
            if self.epoch == 0 {
                self.gone();
            }
        } else if is(ErrorCode::CoordinatorNotAvailable) {
            self.whole = true;
        } else if !is(ErrorCode::UnreleasedInstanceId) {
            self.gone();
        }
    }

    fn gone(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.news = false;
    }
}

impl Client for Modern {
    const REPEATS: bool = false;

    fn new(rng: &mut StdRng, name: Option<String>) -> Modern {
        let mut client = Modern {
            name,
            id: Uuid(rng.random()).to_string(),
            epoch: 0,
            topics: Vec::new(),
            pattern: String::new(),
            assignor: None,
            owned: Vec::new(),
            news: false,
            whole: true,
        };
        client.want(rng);
        client
    }

    fn ask(&mut self, _: &mut StdRng) -> (Ask, i16, bool) {
        let request = self.heartbeat(self.epoch);
        (
            Ask::ConsumerHeartbeat(request, Found::default()),
            1,
            !self.news,
        )
    }

    fn told(&mut self, told: &Told) {
        match told {
            Told::ConsumerHeartbeat(answer) => self.heard(answer),
            _ => panic!("another protocol's answer"),
        }
    }

    fn cut_off(&mut self) {
        self.whole = true;
    }

    fn stir(&mut self, rng: &mut StdRng) -> (Ask, i16) {
        let epoch = match rng.random_range(0..4) {
            0 => -1,
            1 if self.name.is_some() => EPOCH_AWAY,
            2 => self.epoch,
            _ => {
                self.want(rng);
                self.whole = true;
                self.epoch
            }
        };
        (
            Ask::ConsumerHeartbeat(self.heartbeat(epoch), Found::default()),
            1,
        )
    }

    fn is_in(&self, generation: i32) -> bool {
        self.epoch == generation && !self.news && !self.whole
    }

    fn owned(&self) -> Vec<(Uuid, i32)> {
        pairs(&owned(&self.owned)).collect()
    }
}

#[test]
fn random_steps_of_the_consumer_protocol() {
    run::<ConsumerGroup>(300_000);
}
