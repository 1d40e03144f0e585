//! What a field of a message table may be, and how each such type is read and written.
//!
//! ```text
//! bool i8 i16 u16 i32 u32 i64 f64 Uuid    as they are
//! String                                  STRING or COMPACT_STRING
//! Vec<u8>                                 BYTES or COMPACT_BYTES
//! Vec<T>                                  ARRAY or COMPACT_ARRAY
//! Records                                 RECORDS or COMPACT_RECORDS
//! a table's struct                        its fields, then its tagged fields
//! Option<T>                               null, or T
//! ```

use super::frame::Records;
use super::primitives::{Reader, Result, Uuid, Writer};
use std::fmt::Debug;

#[cfg(test)]
use rand::{Rng, rngs::StdRng};

/// What of a message's version decides how a field is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The message's version.
    pub version: i16,
    /// Whether the version has compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
    /// Whether the field may be null in the version.
    pub nullable: bool,
}

/// A type that a table's field can have.
pub trait Field: Sized {
    /// Reads one.
    fn get(reader: &mut Reader<'_>, shape: Shape) -> Result<Self>;

    /// Writes it.
    fn put(&self, writer: &mut Writer, shape: Shape);

    /// A random one, as the shape allows.
    #[cfg(test)]
    fn random(rng: &mut StdRng, shape: Shape) -> Self;
}

/// A field type that can be null.
pub trait Nullable: Field + Default {
    /// Reads one, or null.
    fn get_nullable(reader: &mut Reader<'_>, shape: Shape) -> Result<Option<Self>>;

    /// Writes one, or null.
    fn put_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape);
}

/// A struct that a table defines; every such struct is nullable by a byte in front of it.
pub trait Struct: Field + Clone + Debug + Default + PartialEq {}

/// In a version whose field has no null, null is written as the type's default.
impl<T: Nullable> Field for Option<T> {
    fn get(reader: &mut Reader<'_>, shape: Shape) -> Result<Self> {
        if shape.nullable {
            T::get_nullable(reader, shape)
        } else {
            T::get(reader, shape).map(Some)
        }
    }

    fn put(&self, writer: &mut Writer, shape: Shape) {
        match self {
            _ if shape.nullable => T::put_nullable(self.as_ref(), writer, shape),
            Some(value) => value.put(writer, shape),
            None => T::default().put(writer, shape),
        }
    }

    #[cfg(test)]
    fn random(rng: &mut StdRng, shape: Shape) -> Self {
        (!shape.nullable || rng.random_bool(0.7)).then(|| T::random(rng, shape))
    }
}

impl<T: Struct> Nullable for T {
    fn get_nullable(reader: &mut Reader<'_>, shape: Shape) -> Result<Option<Self>> {
        if reader.i8()? < 0 {
            return Ok(None);
        }
        T::get(reader, shape).map(Some)
    }

    fn put_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) {
        writer.put(&[if value.is_some() { 1 } else { -1i8 as u8 }]);
        if let Some(value) = value {
            value.put(writer, shape);
        }
    }
}

macro_rules! fixed {
    ($($type:ident $read:ident |$value:ident| $bytes:expr;)*) => { $(
        impl Field for $type {
            fn get(reader: &mut Reader<'_>, _: Shape) -> Result<Self> {
                reader.$read()
            }

            fn put(&self, writer: &mut Writer, _: Shape) {
                let $value = self;
                writer.put(&$bytes);
            }

            #[cfg(test)]
            fn random(rng: &mut StdRng, _: Shape) -> Self {
                rng.random()
            }
        }
    )* };
}

fixed! {
    bool bool |v| [u8::from(*v)];
    i8 i8 |v| v.to_be_bytes();
    i16 i16 |v| v.to_be_bytes();
    u16 u16 |v| v.to_be_bytes();
    i32 i32 |v| v.to_be_bytes();
    u32 u32 |v| v.to_be_bytes();
    i64 i64 |v| v.to_be_bytes();
    f64 f64 |v| v.to_be_bytes();
    Uuid uuid |v| v.0;
}

#[cfg(test)]
impl rand::distr::Distribution<Uuid> for rand::distr::StandardUniform {
    fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Uuid {
        Uuid(rng.random())
    }
}

/// The plain form of a field whose length also tells null: null is refused.
macro_rules! get_not_null {
    () => {
        fn get(reader: &mut Reader<'_>, shape: Shape) -> Result<Self> {
            match Self::get_nullable(reader, shape)? {
                Some(value) => Ok(value),
                None => Err(reader.malformed("null where there must be a value")),
            }
        }

        fn put(&self, writer: &mut Writer, shape: Shape) {
            Self::put_nullable(Some(self), writer, shape);
        }
    };
}

impl Field for String {
    get_not_null!();

    #[cfg(test)]
    fn random(rng: &mut StdRng, _: Shape) -> Self {
        // Lengths around 127 and 128 are where a varint grows.
        let length = *[0, 1, 5, 126, 127, 128]
            .get(rng.random_range(0..6))
            .unwrap();
        (0..length).map(|_| rng.random_range('a'..='z')).collect()
    }
}

impl Nullable for String {
    fn get_nullable(reader: &mut Reader<'_>, shape: Shape) -> Result<Option<Self>> {
        reader.string(shape.flexible)
    }

    fn put_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) {
        writer.string(value.map(String::as_str), shape.flexible);
    }
}

impl Field for Vec<u8> {
    get_not_null!();

    #[cfg(test)]
    fn random(rng: &mut StdRng, _: Shape) -> Self {
        let length = rng.random_range(0..300);
        (0..length).map(|_| rng.random()).collect()
    }
}

impl Nullable for Vec<u8> {
    fn get_nullable(reader: &mut Reader<'_>, shape: Shape) -> Result<Option<Self>> {
        Ok(reader.bytes(shape.flexible)?.map(<[u8]>::to_vec))
    }

    fn put_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) {
        writer.bytes(value.map(Vec::as_slice), shape.flexible);
    }
}

impl<T: Field> Field for Vec<T> {
    get_not_null!();

    #[cfg(test)]
    fn random(rng: &mut StdRng, shape: Shape) -> Self {
        let count = rng.random_range(0..4);
        (0..count).map(|_| T::random(rng, shape)).collect()
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn get_nullable(reader: &mut Reader<'_>, shape: Shape) -> Result<Option<Self>> {
        let Some(count) = reader.count(shape.flexible)? else {
            return Ok(None);
        };
        // Grown as elements are read: an element may be many times larger here than on the wire.
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(T::get(reader, shape)?);
        }
        Ok(Some(elements))
    }

    fn put_nullable(value: Option<&Self>, writer: &mut Writer, shape: Shape) {
        writer.count(value.map(Vec::len), shape.flexible);
        value
            .into_iter()
            .flatten()
            .for_each(|element| element.put(writer, shape));
    }
}

/// Kafka's tables let records be null wherever they occur.
impl Field for Records {
    fn get(reader: &mut Reader<'_>, shape: Shape) -> Result<Self> {
        let records = reader.records(shape.flexible)?;
        Ok(records.map_or(Records::Null, Records::Held))
    }

    fn put(&self, writer: &mut Writer, shape: Shape) {
        match self {
            Records::Null => writer.bytes(None, shape.flexible),
            Records::Held(bytes) => writer.bytes(Some(bytes), shape.flexible),
            Records::Files(slices) => writer.files(slices, shape.flexible),
        }
    }

    #[cfg(test)]
    fn random(rng: &mut StdRng, shape: Shape) -> Self {
        match rng.random_bool(0.8) {
            true => Records::Held(Vec::<u8>::random(rng, shape).into()),
            false => Records::Null,
        }
    }
}
