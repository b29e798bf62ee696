; Takes the lock of gamma and goes round and round.
        mov r1, gamma
        call lock
        jslt r0, 0, out
        call meet
round:  call again
        jne r0, 0, round
out:    exit
