//! A null gatekeeper: no streams, no checks; every send is answered at once.
