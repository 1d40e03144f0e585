//! stub
#![allow(missing_docs, unused)]
use super::*;
use crate::api::consumer_group_describe::DescribedGroup;
#[derive(Clone)]
pub struct ConsumerGroup<W> {
    w: Option<W>,
}
impl<W: Clone> ConsumerGroup<W> {
    pub fn new(id: &str) -> Self {
        ConsumerGroup { w: None }
    }
    pub fn replay(&mut self, record: &Record, env: &Env<'_>) {}
    pub fn loaded(&mut self, env: &Env<'_>) {}
    pub fn step(&mut self, event: Event<W>, env: &Env<'_>, effects: &mut Effects<W>) {}
    pub fn due_ms(&self) -> Option<i64> {
        None
    }
    pub fn check_commit(
        &mut self,
        m: &str,
        i: Option<&str>,
        e: i32,
        v: i16,
        env: &Env<'_>,
    ) -> Result<(), ErrorCode> {
        Ok(())
    }
    pub fn check_fetch(&self, m: Option<&str>, e: i32, env: &Env<'_>) -> Result<(), ErrorCode> {
        Ok(())
    }
    pub fn check_delete(&self) -> Result<(), ErrorCode> {
        Ok(())
    }
    pub fn subscribed(&self, t: &str) -> bool {
        false
    }
    pub fn tombstones(&self) -> Vec<Record> {
        Vec::new()
    }
    pub fn is_vacant(&self) -> bool {
        true
    }
    pub fn bytes(&self) -> usize {
        0
    }
    pub fn describe(&self, env: &Env<'_>) -> DescribedGroup {
        DescribedGroup::default()
    }
    pub fn state_name(&self) -> &'static str {
        ""
    }
    pub fn empty_since_ms(&self) -> Option<i64> {
        None
    }
    pub fn from_classic(
        c: &ClassicGroup<W>,
        env: &Env<'_>,
        e: &mut Effects<W>,
    ) -> Result<Self, (ErrorCode, String)> {
        Err((ErrorCode::GroupIdNotFound, String::new()))
    }
    pub fn to_classic(&self, env: &Env<'_>, e: &mut Effects<W>) -> Option<ClassicGroup<W>> {
        None
    }
}
