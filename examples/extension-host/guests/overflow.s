; Takes a lock, counts itself, and negates the least number: an interpreter that was built to check for overflows
; panics over that.
        mov r1, delta
        call lock
        jslt r0, 0, out
        mov r1, delta
        mov r2, 0
        call lookup
        add r0, 1
        mov r3, r0
        mov r1, delta
        mov r2, 0
        call update
        mov r0, 1
        lsh r0, 63
        neg r0
        mov r0, 0
out:    exit
