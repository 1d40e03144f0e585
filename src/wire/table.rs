//! The message tables: Kafka's message definitions, one line a field, and the macro that turns them into codecs.
//!
//! ```text
//! FetchRequest(1) [4-18, flexible 12+] {        name, API key, versions, first flexible version
//!     cluster_id: Option<String> [12+ tag 0],   a tagged field (KIP-482)
//!     replica_id: i32 [0-14] = -1,              versions 0 to 14; its default, where Kafka's is not zero
//!     max_wait_ms: i32 [0+],                    every version since 0
//!     topics: Vec<FetchTopic> [0+],
//! }
//! FetchTopic {                                  a struct inside: versions are those of the message
//!     topic: String [0-12],
//!     name: Option<String> [0+ null 12+],       may be null from version 12 on (without `null`: in all)
//! }
//! ```
//!
//! Field names are Kafka's in snake_case, field types those of [`super::field`]. Tagged fields stand in the order
//! of their tags, as they go over the wire. A field that a version lacks is not written, and reads as its default;
//! a tagged field is written only if it differs from its default. The default of an `Option` is null, where Kafka's
//! own is sometimes an empty string: no byte on the wire depends on it.

use super::field::{Shape, Struct};
use super::primitives::{Reader, Result, Writer};
use std::ops::RangeInclusive;

/// A message with a key of its own: a request, a response, or a metadata record.
pub trait Message: Struct {
    /// Kafka's name for it.
    const NAME: &'static str;
    /// The API's key, which request and response share, or the record's type.
    const KEY: i16;
    /// The versions that can be read and written.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version with compact lengths and tagged fields.
    const FLEXIBLE: i16;

    /// Reads the message in one version; bytes after it are left to the caller.
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<Self> {
        if !Self::VERSIONS.contains(&version) {
            return Err(reader.malformed("an unsupported version"));
        }
        Self::get(reader, Self::shape(version))
    }

    /// Writes the message in one version.
    fn write(&self, writer: &mut Writer, version: i16) {
        debug_assert!(Self::VERSIONS.contains(&version));
        self.put(writer, Self::shape(version));
    }

    /// What `version` means for the layout.
    fn shape(version: i16) -> Shape {
        Shape {
            version,
            flexible: version >= Self::FLEXIBLE,
            nullable: false,
        }
    }
}

/// A field's place in the versions: what stands in the table's square brackets.
pub(crate) struct Place {
    pub since: i16,
    pub until: i16,
    pub null_since: i16,
    pub tag: Option<u32>,
}

impl Place {
    pub const fn new(since: i16, until: i16) -> Place {
        Place {
            since,
            until,
            null_since: 0,
            tag: None,
        }
    }

    pub const fn null(self, null_since: i16) -> Place {
        Place { null_since, ..self }
    }

    pub const fn tag(self, tag: u32) -> Place {
        Place {
            tag: Some(tag),
            ..self
        }
    }

    const fn holds(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    /// Whether `version` has the field among the untagged ones.
    pub const fn plain(&self, version: i16) -> bool {
        self.tag.is_none() && self.holds(version)
    }

    /// The field's tag, if `version` has it as a tagged one.
    pub const fn tag_in(&self, version: i16) -> Option<u32> {
        if self.holds(version) { self.tag } else { None }
    }

    pub const fn shape(&self, message: Shape) -> Shape {
        Shape {
            nullable: message.version >= self.null_since,
            ..message
        }
    }
}

/// One field's square brackets, as a [`Place`].
macro_rules! place {
    ($since:literal + $(null $null:literal +)? $(tag $tag:literal)?) => {
        $crate::wire::table::Place::new($since, i16::MAX)$(.null($null))?$(.tag($tag))?
    };
    ($since:literal - $until:literal $(null $null:literal +)?) => {
        $crate::wire::table::Place::new($since, $until)$(.null($null))?
    };
    ($only:literal) => { $crate::wire::table::Place::new($only, $only) };
}

macro_rules! default_or {
    ($default:expr) => {
        $default
    };
    () => {
        Default::default()
    };
}

/// Turns tables (see the module's head) into structs that implement [`Message`] or [`Struct`].
macro_rules! messages {
    ($(
        $(#[$about:meta])*
        $name:ident $(($key:literal) [$first:literal - $last:literal, flexible $flexible:literal +])? {
            $($(#[$note:meta])* $field:ident: $type:ty [$($place:tt)+] $(= $default:expr)?,)*
        }
    )*) => { $(
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub struct $name { $($(#[$note])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $crate::wire::table::default_or!($($default)?),)* }
            }
        }

        const _: () = {
            use $crate::wire::field::{Field, Shape, Struct};
            use $crate::wire::primitives::{Reader, Result, Writer};

            #[allow(non_upper_case_globals, unused)]
            mod at {
                use $crate::wire::table::{Place, place};
                $(pub const $field: Place = place!($($place)+);)*
            }

            impl Struct for $name {}

            $(impl $crate::wire::Message for $name {
                const NAME: &'static str = stringify!($name);
                const KEY: i16 = $key;
                const VERSIONS: std::ops::RangeInclusive<i16> = $first..=$last;
                const FLEXIBLE: i16 = $flexible;
            })?

            #[allow(unused)]
            impl Field for $name {
                fn get(reader: &mut Reader<'_>, shape: Shape) -> Result<Self> {
                    let mut message = Self::default();
                    $(if at::$field.plain(shape.version) {
                        reader.field = stringify!($field);
                        message.$field = Field::get(reader, at::$field.shape(shape))?;
                    })*
                    if shape.flexible {
                        reader.tags(|reader, tag| {
                            $(if at::$field.tag_in(shape.version) == Some(tag) {
                                reader.field = stringify!($field);
                                message.$field = Field::get(reader, at::$field.shape(shape))?;
                                return Ok(true);
                            })*
                            Ok(false)
                        })?;
                    }
                    Ok(message)
                }

                fn put(&self, writer: &mut Writer, shape: Shape) {
                    $(if at::$field.plain(shape.version) {
                        self.$field.put(writer, at::$field.shape(shape));
                    })*
                    if shape.flexible {
                        let unset = Self::default();
                        writer.unsigned_varint(0 $(+ u32::from(
                            at::$field.tag_in(shape.version).is_some() && self.$field != unset.$field
                        ))*);
                        $(if let Some(tag) = at::$field.tag_in(shape.version)
                            && self.$field != unset.$field
                        {
                            writer.tagged(tag, |w| self.$field.put(w, at::$field.shape(shape)));
                        })*
                    }
                }

                #[cfg(test)]
                fn random(rng: &mut rand::rngs::StdRng, shape: Shape) -> Self {
                    let mut message = Self::default();
                    $(if at::$field.plain(shape.version)
                        || at::$field.tag_in(shape.version).is_some() && rand::Rng::random(rng)
                    {
                        message.$field = Field::random(rng, at::$field.shape(shape));
                    })*
                    message
                }
            }
        };
    )* };
}

pub(crate) use {default_or, messages, place};
