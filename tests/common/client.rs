//! A raw client: one socket, the broker's own message tables, no retries and no manners, so that a test sees each
//! answer as it came. The tables themselves are held against `kafka-protocol` elsewhere.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ottla::api::create_topics::{CreatableTopic, CreatableTopicConfig};
use ottla::api::create_topics::{CreateTopicsRequest, CreateTopicsResponse};
use ottla::api::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use ottla::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use ottla::api::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::api::list_offsets::{ListOffsetsPartition, ListOffsetsPartitionResponse};
use ottla::api::list_offsets::{ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic};
use ottla::api::produce::{PartitionProduceData, PartitionProduceResponse};
use ottla::api::produce::{ProduceRequest, ProduceResponse, TopicProduceData};
use ottla::batch::builder::Builder;
use ottla::batch::{Header, check_stored};
use ottla::error::ErrorCode;
use ottla::wire::{Message, Reader, Records, RequestHeader, Uuid};
use ottla::wire::{read_response, write_request};

/// Longer than anything here takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Some moment in 2023, milliseconds since 1970.
pub const LONG_AGO_MS: i64 = 1_700_000_000_000;

/// The last version with topics by name, flexible and with error messages.
pub const PRODUCE: i16 = 12;
pub const FETCH: i16 = 12;
pub const LIST_OFFSETS: i16 = 8;

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Who it says that it is.
    pub client_id: String,
    next: i32,
    /// The requests whose answers are still to come.
    sent: VecDeque<i32>,
}

impl Client {
    pub fn connect(address: &str) -> Client {
        Client::over(TcpStream::connect(address).expect("the broker accepts"))
    }

    /// A client over a connection that is there.
    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            client_id: "raw".into(),
            next: 1,
            sent: VecDeque::new(),
        }
    }

    /// Sends a request without waiting for its answer.
    pub fn send<Q: Message>(&mut self, version: i16, request: &Q) {
        let bytes = self.frame(version, request);
        self.send_bytes(&bytes);
        self.sent.push_back(self.next);
        self.next += 1;
    }

    /// The frame that [`Client::send`] would send.
    pub fn frame<Q: Message>(&self, version: i16, request: &Q) -> Vec<u8> {
        let header = RequestHeader {
            api_key: Q::KEY,
            api_version: version,
            correlation_id: self.next,
            client_id: Some(self.client_id.clone()),
        };
        write_request(&header, request).bytes
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Like [`Client::send_bytes`], for bytes at which the broker may well close the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The answer to the oldest request that has none yet; it must be of the right length to the byte.
    pub fn receive<A: Message>(&mut self, version: i16) -> A {
        let expected = self.sent.pop_front().expect("a request was sent");
        let frame = self.receive_frame();
        let mut reader = Reader::new(&frame);
        let (correlation_id, answer) =
            read_response(&mut reader, version).expect("an answer of this version");
        assert_eq!(correlation_id, expected, "answers come in order");
        reader.finish().expect("nothing after the answer");
        answer
    }

    /// The next frame's bytes, without the length.
    pub fn receive_frame(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("an answer");
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).expect("a whole answer");
        frame
    }

    pub fn call<Q: Message, A: Message>(&mut self, version: i16, request: &Q) -> A {
        self.send(version, request);
        self.receive(version)
    }

    /// Waits until the broker closes the connection; it must not answer.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("an answer instead of the end"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("neither an answer nor the end: {error}"),
        }
    }

    /// Whether nothing comes for a while that is too short to matter and long enough to notice most mistakes.
    pub fn is_silent(&mut self) -> bool {
        let brief = Duration::from_millis(300);
        self.stream.set_read_timeout(Some(brief)).unwrap();
        let silent = matches!(
            self.stream.peek(&mut [0]).map_err(|error| error.kind()),
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)
        );
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Creates a topic of one partition with settings, and returns its id.
    #[track_caller]
    pub fn create(&mut self, name: &str, settings: &[(&str, &str)]) -> Uuid {
        self.create_with(name, 1, settings)
    }

    #[track_caller]
    pub fn create_with(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Uuid {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: name.to_string(),
            value: Some(value.to_string()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.into(),
                num_partitions: partitions,
                replication_factor: -1,
                configs: settings.iter().map(config).collect(),
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let mut answer: CreateTopicsResponse = self.call(7, &request);
        let topic = answer.topics.remove(0);
        assert_eq!(topic.error_code, 0, "{:?}", topic.error_message);
        topic.topic_id
    }

    #[track_caller]
    pub fn delete(&mut self, name: &str) {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.into()],
            ..DeleteTopicsRequest::default()
        };
        let answer: DeleteTopicsResponse = self.call(5, &request);
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    /// Produces to partition 0.
    pub fn produce(&mut self, topic: &str, acks: i16, batch: &[u8]) -> PartitionProduceResponse {
        self.send(PRODUCE, &produce(topic, acks, batch));
        self.produced()
    }

    /// The answer to a [`produce`] that was sent.
    pub fn produced(&mut self) -> PartitionProduceResponse {
        let mut answer: ProduceResponse = self.receive(PRODUCE);
        answer.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces to partition 0 and wants it stored; returns the base offset.
    #[track_caller]
    pub fn store(&mut self, topic: &str, batch: &[u8]) -> i64 {
        let answer = self.produce(topic, -1, batch);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        answer.base_offset
    }

    /// Produces to partition 0 and wants it refused with `code`.
    #[track_caller]
    pub fn refused(&mut self, topic: &str, batch: &[u8], code: ErrorCode) {
        let answer = self.produce(topic, -1, batch);
        assert_eq!(
            answer.error_code,
            code.code(),
            "{code:?} {:?}",
            answer.error_message
        );
        assert_eq!(answer.base_offset, -1);
    }

    /// Fetches from partition 0 what there is, without waiting.
    pub fn fetch(&mut self, topic: &str, offset: i64) -> PartitionData {
        self.send(FETCH, &fetch(topic, offset, 0, 0));
        self.fetched()
    }

    /// The answer to a [`fetch`] that was sent.
    pub fn fetched(&mut self) -> PartitionData {
        let mut answer: FetchResponse = self.receive(FETCH);
        assert_eq!(answer.error_code, 0);
        answer.responses.remove(0).partitions.remove(0)
    }

    /// All values in partition 0, from the start of the log.
    pub fn values(&mut self, topic: &str) -> Vec<String> {
        let start = self.offset(topic, -2).offset;
        let data = self.fetch(topic, start);
        assert_eq!(data.error_code, 0);
        values(&data.records)
    }

    /// Asks for an offset of partition 0 by time.
    pub fn offset(&mut self, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
        self.offset_in(LIST_OFFSETS, topic, timestamp)
    }

    pub fn offset_in(
        &mut self,
        version: i16,
        topic: &str,
        timestamp: i64,
    ) -> ListOffsetsPartitionResponse {
        let request = list_offsets(topic, timestamp, -1);
        let mut answer: ListOffsetsResponse = self.call(version, &request);
        answer.topics.remove(0).partitions.remove(0)
    }

    pub fn producer_id(&mut self) -> i64 {
        let request = InitProducerIdRequest::default();
        let answer: InitProducerIdResponse = self.call(4, &request);
        assert_eq!((answer.error_code, answer.producer_epoch), (0, 0));
        answer.producer_id
    }
}

/// A request to append one batch to partition 0.
pub fn produce(topic: &str, acks: i16, batch: &[u8]) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Records::Held(batch.to_vec().into()),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// A request to read partition 0, of at most 50 MiB.
pub fn fetch(topic: &str, offset: i64, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms,
        min_bytes,
        max_bytes: 50 << 20,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![fetch_partition(0, offset)],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

pub fn fetch_partition(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: 50 << 20,
        ..FetchPartition::default()
    }
}

/// A request for one offset of partition 0.
pub fn list_offsets(topic: &str, timestamp: i64, current_leader_epoch: i32) -> ListOffsetsRequest {
    ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 0,
                current_leader_epoch,
                timestamp,
            }],
        }],
        ..ListOffsetsRequest::default()
    }
}

/// Records with these values, one millisecond apart, not yet a batch.
pub fn records(values: &[&str]) -> Builder {
    let mut builder = Builder::new(LONG_AGO_MS);
    for (at, value) in (0..).zip(values) {
        builder.add(None, Some(value.as_bytes()), &[], LONG_AGO_MS + at);
    }
    builder
}

/// A batch of records with these values.
pub fn batch(values: &[&str]) -> Vec<u8> {
    records(values).build()
}

/// A batch of an idempotent producer.
pub fn sequenced(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Vec<u8> {
    records(values).producer(id, epoch, sequence).build()
}

/// Applies `change` to a batch's header and makes the CRC right again.
pub fn altered(batch: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (head, body) = batch.split_first_chunk().expect("a header");
    let mut header = Header::parse(head);
    change(&mut header);
    header.crc = ottla::batch::crc(&header.encode(), body);
    [&header.encode()[..], body].concat()
}

/// The bytes of a response's records.
pub fn bytes(records: &Records) -> &[u8] {
    match records {
        Records::Held(bytes) => bytes,
        Records::Null | Records::Files(_) => &[],
    }
}

/// The whole batches that bytes begin with, each checked.
pub fn batches(mut bytes: &[u8]) -> Vec<(Header, &[u8])> {
    let mut found = Vec::new();
    while let Ok(header) = check_stored(bytes) {
        let (batch, rest) = bytes.split_at(header.total_bytes());
        found.push((header, batch));
        bytes = rest;
    }
    found
}

/// The values of uncompressed batches.
pub fn values(records: &Records) -> Vec<String> {
    let mut found = Vec::new();
    for (header, batch) in batches(bytes(records)) {
        let body = &batch[ottla::batch::HEADER_BYTES..];
        let mut walk = ottla::batch::records::Walk::new(body, header.records_count);
        while let Some(record) = walk.next_record().expect("records that add up") {
            let value = &body[record.value.expect("a value")];
            found.push(String::from_utf8(value.to_vec()).expect("UTF-8"));
        }
    }
    found
}
