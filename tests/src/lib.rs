//! The lab: network namespaces with a real Docker Engine in one of them.
