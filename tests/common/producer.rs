//! A raw client on the broker's own wire tables: every byte that it sends or receives is the test's to see.
#![allow(dead_code)] // each test file uses its part

use ottla::api::create_topics::*;
use ottla::api::delete_topics::*;
use ottla::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use ottla::api::init_producer_id::*;
use ottla::api::list_offsets::*;
use ottla::api::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use ottla::api::offset_for_leader_epoch as epochs;
use ottla::api::produce::*;
use ottla::batch::builder::Builder;
use ottla::batch::{HEADER_BYTES, Header, LENGTH_STARTS_AT, check_stored};
use ottla::wire::{
    Frame, Message, Reader, Records, RequestHeader, Uuid, read_response, write_request,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// One connection.
pub struct Client {
    pub socket: TcpStream,
    correlation_id: i32,
    answered: i32,
}

/// A partition's part of a produce request: topic, partition, batch.
pub type Part<'a> = (&'a str, i32, &'a [u8]);

impl Client {
    /// Connects to a broker.
    pub fn connect(address: &str) -> io::Result<Client> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Client {
            socket,
            correlation_id: 0,
            answered: 0,
        })
    }

    /// Sends a request; answers come in the order of the requests.
    pub fn send<M: Message>(&mut self, version: i16, request: &M) -> io::Result<()> {
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: M::KEY,
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some("test".into()),
        };
        self.socket
            .write_all(&write_request(&header, request).bytes)
    }

    /// Receives the next answer. An end of the stream is an error of the kind `UnexpectedEof`.
    pub fn receive<M: Message>(&mut self, version: i16) -> io::Result<M> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut bytes)?;
        let frame = Arc::new(Frame::from(bytes));
        let mut reader = Reader::of_frame(&frame);
        let (id, message) = read_response(&mut reader, version)
            .map_err(|e| io::Error::new(ErrorKind::InvalidData, e.to_string()))?;
        assert_eq!(reader.remaining(), 0, "nothing follows a message");
        self.answered += 1;
        assert_eq!(id, self.answered, "answers come in order");
        Ok(message)
    }

    /// Sends a request and receives its answer.
    pub fn call<Q: Message, R: Message>(&mut self, version: i16, request: &Q) -> io::Result<R> {
        self.send(version, request)?;
        self.receive(version)
    }

    /// Creates a topic; gives its id, or the error's code.
    pub fn try_create(
        &mut self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> io::Result<Result<Uuid, i16>> {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: settings.iter().map(config).collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let response: CreateTopicsResponse = self.call(7, &request)?;
        let topic = &response.topics[0];
        Ok(match topic.error_code {
            0 => Ok(topic.topic_id),
            code => Err(code),
        })
    }

    /// Creates a topic that can be created.
    pub fn create(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> Uuid {
        self.try_create(name, partitions, settings)
            .expect("an answer")
            .expect("a topic")
    }

    /// Deletes a topic; gives the error's code, 0 for none.
    pub fn delete(&mut self, name: &str) -> io::Result<i16> {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.into()],
            timeout_ms: 30_000,
            ..DeleteTopicsRequest::default()
        };
        let response: DeleteTopicsResponse = self.call(5, &request)?;
        Ok(response.responses[0].error_code)
    }

    /// The id of a topic, if it is there.
    pub fn topic_id(&mut self, name: &str) -> io::Result<Option<Uuid>> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(name.into()),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let response: MetadataResponse = self.call(12, &request)?;
        let topic = &response.topics[0];
        Ok((topic.error_code == 0).then_some(topic.topic_id))
    }

    /// A new producer id.
    pub fn producer_id(&mut self) -> io::Result<i64> {
        let request = InitProducerIdRequest::default();
        let response: InitProducerIdResponse = self.call(4, &request)?;
        assert_eq!(response.error_code, 0, "InitProducerId");
        Ok(response.producer_id)
    }

    /// Sends a produce request.
    pub fn send_produce(&mut self, acks: i16, parts: &[Part<'_>]) -> io::Result<()> {
        let topic = |&(name, index, batch): &Part<'_>| TopicProduceData {
            name: name.into(),
            partition_data: vec![PartitionProduceData {
                index,
                records: Records::Held(batch.to_vec().into()),
            }],
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            acks,
            timeout_ms: 30_000,
            topic_data: parts.iter().map(topic).collect(),
            ..ProduceRequest::default()
        };
        self.send(PRODUCE, &request)
    }

    /// Receives a produce's answer, part by part.
    pub fn receive_produce(&mut self) -> io::Result<Vec<PartitionProduceResponse>> {
        let response: ProduceResponse = self.receive(PRODUCE)?;
        let parts = response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partition_responses);
        Ok(parts.collect())
    }

    /// Produces one batch with `acks=all`; gives its base offset, or the error's code.
    pub fn produce(
        &mut self,
        topic: &str,
        index: i32,
        batch: &[u8],
    ) -> io::Result<Result<i64, i16>> {
        self.send_produce(-1, &[(topic, index, batch)])?;
        let answer = self.receive_produce()?.remove(0);
        Ok(match answer.error_code {
            0 => Ok(answer.base_offset),
            code => Err(code),
        })
    }

    /// Fetches one partition once; `wait_ms` as long as there is nothing.
    pub fn fetch(
        &mut self,
        topic: &str,
        index: i32,
        offset: i64,
        wait_ms: i32,
    ) -> io::Result<PartitionData> {
        const BYTES_MAX: i32 = 8 << 20;
        let partition = FetchPartition {
            partition: index,
            fetch_offset: offset,
            partition_max_bytes: BYTES_MAX,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: BYTES_MAX,
            topics: vec![FetchTopic {
                topic: topic.into(),
                partitions: vec![partition],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let mut response: FetchResponse = self.call(FETCH, &request)?;
        Ok(response.responses.remove(0).partitions.remove(0))
    }

    /// All whole batches from `offset` to the high watermark, each checked; and the high watermark.
    pub fn fetch_from(
        &mut self,
        topic: &str,
        index: i32,
        mut offset: i64,
    ) -> io::Result<(Vec<Batch>, i64)> {
        let mut found = Vec::new();
        loop {
            let data = self.fetch(topic, index, offset, 0)?;
            assert_eq!(data.error_code, 0, "fetching {topic}-{index} at {offset}");
            let some = batches(bytes_of(&data.records));
            // Who asks for an offset within a batch gets the whole batch.
            let new = some
                .into_iter()
                .filter(|b| b.header.last_offset() >= offset);
            found.extend(new);
            let next = found
                .last()
                .map_or(offset, |b: &Batch| b.header.last_offset() + 1);
            if next == offset {
                assert!(
                    offset >= data.high_watermark,
                    "{topic}-{index} at {offset}: {data:?}"
                );
                return Ok((found, data.high_watermark));
            }
            offset = next;
        }
    }

    /// All of a partition; gives its batches.
    pub fn fetch_all(&mut self, topic: &str, index: i32) -> Vec<Batch> {
        let (found, end) = self.fetch_from(topic, index, 0).expect("an answer");
        assert_eq!(found.last().map_or(0, |b| b.header.last_offset() + 1), end);
        found
    }

    /// ListOffsets: -1 is the end, -2 the start, anything else a time in ms; gives the offset, or the error's code.
    pub fn list_offset(
        &mut self,
        topic: &str,
        index: i32,
        time: i64,
    ) -> io::Result<Result<i64, i16>> {
        let request = ListOffsetsRequest {
            topics: vec![ListOffsetsTopic {
                name: topic.into(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: index,
                    timestamp: time,
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let response: ListOffsetsResponse = self.call(7, &request)?;
        let answer = &response.topics[0].partitions[0];
        Ok(match answer.error_code {
            0 => Ok(answer.offset),
            code => Err(code),
        })
    }

    /// OffsetForLeaderEpoch: the epoch that is known, and where it ends.
    pub fn end_of_epoch(&mut self, topic: &str, index: i32, epoch: i32) -> io::Result<(i32, i64)> {
        let request = epochs::OffsetForLeaderEpochRequest {
            topics: vec![epochs::OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![epochs::OffsetForLeaderPartition {
                    partition: index,
                    leader_epoch: epoch,
                    ..epochs::OffsetForLeaderPartition::default()
                }],
            }],
            ..epochs::OffsetForLeaderEpochRequest::default()
        };
        let response: epochs::OffsetForLeaderEpochResponse = self.call(4, &request)?;
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, 0);
        Ok((answer.leader_epoch, answer.end_offset))
    }
}

/// A batch as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub header: Header,
    pub bytes: Vec<u8>,
}

impl Batch {
    /// All that may not change between producer and consumer: what follows base offset, length and leader epoch.
    pub fn sacred(&self) -> &[u8] {
        sacred(&self.bytes)
    }
}

/// The part of a batch that the broker may not change.
pub fn sacred(batch: &[u8]) -> &[u8] {
    &batch[LENGTH_STARTS_AT + 4..]
}

/// The bytes of a records field.
pub fn bytes_of(records: &Records) -> &[u8] {
    match records {
        Records::Held(slice) => slice,
        _ => &[],
    }
}

/// The whole batches that `bytes` begin with, each checked with its CRC; what is cut off at the end is left out.
pub fn batches(mut bytes: &[u8]) -> Vec<Batch> {
    let mut found = Vec::new();
    while let Some(head) = bytes.first_chunk::<HEADER_BYTES>() {
        let len = Header::parse(head).total_bytes();
        if len > bytes.len() {
            break;
        }
        let header = check_stored(&bytes[..len]).expect("a batch whose CRC is right");
        found.push(Batch {
            header,
            bytes: bytes[..len].to_vec(),
        });
        bytes = &bytes[len..];
    }
    found
}

/// A batch of records with these values; `producer` is its id and first sequence.
pub fn batch(producer: Option<(i64, i32)>, values: &[&[u8]]) -> Vec<u8> {
    const TIME_MS: i64 = 1_700_000_000_000;
    let mut builder = Builder::new(TIME_MS);
    if let Some((id, sequence)) = producer {
        builder = builder.producer(id, 0, sequence);
    }
    for value in values {
        builder.add(None, Some(value), &[], TIME_MS);
    }
    builder.build()
}
